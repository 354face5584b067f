package android.content.pm;

public class PackageManager {
  public PackageInfo getPackageInfo(String name, int flags) throws NameNotFoundException {
    return new PackageInfo();
  }

  public PackageInfo getPackageInfo(String name, PackageInfoFlags flags)
      throws NameNotFoundException {
    return new PackageInfo();
  }

  public static class NameNotFoundException extends Exception {}

  public static class PackageInfoFlags {
    public static PackageInfoFlags of(long flags) {
      return new PackageInfoFlags();
    }
  }
}
