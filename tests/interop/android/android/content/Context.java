package android.content;

import java.io.File;
import java.util.HashMap;
import java.util.Map;

/** An app's own folders, below one folder. */
public class Context {
  private final File home;
  private final Map<String, SharedPreferences> preferences = new HashMap<>();

  public Context(File home) {
    this.home = home;
    for (String name : new String[] {"files", "cache", "assets", "preferences"}) {
      new File(home, name).mkdirs();
    }
  }

  public File getFilesDir() {
    return new File(home, "files");
  }

  public File getCacheDir() {
    return new File(home, "cache");
  }

  public String getPackageName() {
    return "test.app";
  }

  public android.content.pm.PackageManager getPackageManager() {
    return new android.content.pm.PackageManager();
  }

  public android.content.res.AssetManager getAssets() {
    return new android.content.res.AssetManager(new File(home, "assets"));
  }

  public android.content.res.Resources getResources() {
    return new android.content.res.Resources();
  }

  public synchronized SharedPreferences getSharedPreferences(String name, int mode) {
    return preferences.computeIfAbsent(
        name, key -> new SharedPreferences(new File(home, "preferences/" + key)));
  }
}
