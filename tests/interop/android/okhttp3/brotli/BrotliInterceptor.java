package okhttp3.brotli;

import java.io.IOException;
import okhttp3.Interceptor;
import okhttp3.Response;

/** Debian has no okhttp-brotli: asks for nothing, so nothing needs to be decoded. */
public class BrotliInterceptor implements Interceptor {
  public static final BrotliInterceptor INSTANCE = new BrotliInterceptor();

  @Override
  public Response intercept(Chain chain) throws IOException {
    return chain.proceed(chain.request());
  }
}
