package com.getcapacitor;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** A call without arguments, whose outcome can be waited for. */
public class PluginCall {
  private final CompletableFuture<String> outcome = new CompletableFuture<>();

  public String getString(String key) {
    return null;
  }

  public String getString(String key, String otherwise) {
    return otherwise;
  }

  public Integer getInt(String key) {
    return null;
  }

  public void resolve() {
    resolve(new JSObject());
  }

  public void resolve(JSObject answer) {
    outcome.complete(answer.toString());
  }

  public void reject(String message) {
    outcome.complete(new JSObject().put("rejected", message).toString());
  }

  public String await() throws Exception {
    return outcome.get(60, TimeUnit.SECONDS);
  }
}
