package android.content.pm;

public class PackageInfo {
  public String versionName = System.getProperty("app.versionName", "1.0.0");
  public long code = Long.getLong("app.versionCode", 1);
}
