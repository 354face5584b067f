package com.getcapacitor;

public class Logger {
  public static void debug(String tag, String message) {
    System.err.println(message);
  }

  public static void warn(String tag, String message) {
    System.err.println(message);
  }

  public static void error(String tag, String message, Throwable cause) {
    System.err.println(message + " " + cause);
  }
}
