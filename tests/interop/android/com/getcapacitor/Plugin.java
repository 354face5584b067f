package com.getcapacitor;

import android.content.Context;

public class Plugin {
  private Context context;
  private Bridge bridge;
  private PluginConfig config;

  public void attach(Context context, Bridge bridge, PluginConfig config) {
    this.context = context;
    this.bridge = bridge;
    this.config = config;
  }

  public Context getContext() {
    return context;
  }

  public Bridge getBridge() {
    return bridge;
  }

  public PluginConfig getConfig() {
    return config;
  }

  protected void handleOnResume() {}

  protected void notifyListeners(String event, JSObject data, boolean retain) {}
}
