package com.getcapacitor;

import org.json.JSONException;
import org.json.JSONObject;

/** JSONObject without the checked exception. */
public class JSObject extends JSONObject {
  @Override
  public JSObject put(String key, Object value) {
    try {
      super.put(key, value);
    } catch (JSONException e) {
      throw new IllegalArgumentException(e);
    }
    return this;
  }

  public JSObject put(String key, String value) {
    return put(key, (Object) value);
  }

  @Override
  public JSObject put(String key, boolean value) {
    return put(key, (Object) value);
  }

  @Override
  public JSObject put(String key, int value) {
    return put(key, (Object) value);
  }

  @Override
  public JSObject put(String key, long value) {
    return put(key, (Object) value);
  }

  @Override
  public JSObject put(String key, double value) {
    return put(key, (Object) value);
  }
}
