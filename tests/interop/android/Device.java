import android.content.Context;
import com.getcapacitor.Bridge;
import com.getcapacitor.PluginCall;
import com.getcapacitor.PluginConfig;
import io.capawesome.capacitorjs.plugins.liveupdate.LiveUpdatePlugin;
import java.io.File;
import java.nio.file.Files;
import java.util.Map;

/** One start of an app: java Device FOLDER APP HOST PUBLIC_KEY_FILE CALL... */
public class Device {
  public static void main(String[] args) throws Exception {
    Context context = new Context(new File(args[0]));
    Bridge bridge = new Bridge(context);
    LiveUpdatePlugin plugin = new LiveUpdatePlugin();
    String key = new String(Files.readAllBytes(new File(args[3]).toPath()));
    plugin.attach(
        context,
        bridge,
        new PluginConfig(
            Map.of(
                "appId", args[1], "serverDomain", args[2], "publicKey", key,
                "defaultChannel", "production", "readyTimeout", "0")));
    plugin.load();
    for (int i = 4; i < args.length; i++) {
      PluginCall call = new PluginCall();
      LiveUpdatePlugin.class.getMethod(args[i], PluginCall.class).invoke(plugin, call);
      System.out.println(call.await());
    }
    System.out.println(bridge.getServerBasePath());
    System.exit(0);
  }
}
