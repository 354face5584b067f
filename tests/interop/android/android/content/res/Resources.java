package android.content.res;

public class Resources {
  public int getIdentifier(String name, String type, String owner) {
    return 0;
  }

  public String getString(int id) {
    return null;
  }
}
