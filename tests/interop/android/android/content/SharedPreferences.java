package android.content;

import java.io.File;
import java.io.FileReader;
import java.io.FileWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;

/** Kept in a file, so that another JVM is a restart of the app. */
public class SharedPreferences {
  private final File file;
  private final Properties values = new Properties();

  SharedPreferences(File file) {
    this.file = file;
    if (file.exists()) {
      try (FileReader in = new FileReader(file)) {
        values.load(in);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  public synchronized String getString(String key, String otherwise) {
    return values.getProperty(key, otherwise);
  }

  public synchronized int getInt(String key, int otherwise) {
    return Integer.parseInt(values.getProperty(key, Integer.toString(otherwise)));
  }

  public Editor edit() {
    return new Editor();
  }

  private synchronized boolean write(Map<String, String> changes) {
    changes.forEach(
        (key, value) -> {
          if (value == null) values.remove(key);
          else values.setProperty(key, value);
        });
    try (FileWriter out = new FileWriter(file)) {
      values.store(out, null);
      return true;
    } catch (IOException e) {
      return false;
    }
  }

  public class Editor {
    private final Map<String, String> changes = new HashMap<>();

    public Editor putString(String key, String value) {
      changes.put(key, value);
      return this;
    }

    public Editor putInt(String key, int value) {
      return putString(key, Integer.toString(value));
    }

    public Editor remove(String key) {
      return putString(key, null);
    }

    public boolean commit() {
      boolean done = write(changes);
      changes.clear();
      return done;
    }

    public void apply() {
      commit();
    }
  }
}
