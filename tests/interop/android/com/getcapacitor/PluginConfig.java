package com.getcapacitor;

import java.util.Map;

public class PluginConfig {
  private final Map<String, String> values;

  public PluginConfig(Map<String, String> values) {
    this.values = values;
  }

  public String getString(String key, String otherwise) {
    return values.getOrDefault(key, otherwise);
  }

  public boolean getBoolean(String key, boolean otherwise) {
    return Boolean.parseBoolean(getString(key, Boolean.toString(otherwise)));
  }

  public int getInt(String key, int otherwise) {
    return Integer.parseInt(getString(key, Integer.toString(otherwise)));
  }
}
