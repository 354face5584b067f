package com.getcapacitor;

import android.content.Context;
import com.getcapacitor.plugin.WebView;
import java.io.File;

/** Serves the path that was saved, if it is there, else the app's own assets. */
public class Bridge {
  public static final String DEFAULT_WEB_ASSET_DIR = "public";
  private String path = DEFAULT_WEB_ASSET_DIR;

  public Bridge(Context context) {
    String saved =
        context
            .getSharedPreferences(WebView.WEBVIEW_PREFS_NAME, 0)
            .getString(WebView.CAP_SERVER_PATH, "");
    if (!saved.isEmpty() && new File(saved).exists()) path = saved;
  }

  public String getServerBasePath() {
    return path;
  }

  public void setServerBasePath(String path) {
    this.path = path;
  }

  public void setServerAssetPath(String path) {
    this.path = path;
  }

  public void reload() {}

  public void addWebViewListener(WebViewListener listener) {}
}
