package android.os;

import java.util.Timer;
import java.util.TimerTask;

public class Handler {
  private Timer timer = new Timer(true);

  public Handler(Looper looper) {}

  public synchronized boolean postDelayed(Runnable task, long milliseconds) {
    timer.schedule(
        new TimerTask() {
          @Override
          public void run() {
            task.run();
          }
        },
        milliseconds);
    return true;
  }

  public synchronized void removeCallbacksAndMessages(Object token) {
    timer.cancel();
    timer = new Timer(true);
  }
}
