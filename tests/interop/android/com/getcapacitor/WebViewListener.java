package com.getcapacitor;

public class WebViewListener {
  public void onPageLoaded(android.webkit.WebView view) {}
}
