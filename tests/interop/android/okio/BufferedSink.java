package okio;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.channels.WritableByteChannel;
import java.nio.charset.Charset;

/** Okio 1.16's interface, with the name that later versions gave to buffer(). */
public interface BufferedSink extends Sink, WritableByteChannel {
  Buffer buffer();

  default Buffer getBuffer() {
    return buffer();
  }

  OutputStream outputStream();

  BufferedSink write(ByteString a) throws IOException;

  BufferedSink write(byte[] a) throws IOException;

  BufferedSink write(byte[] a, int b, int c) throws IOException;

  long writeAll(Source a) throws IOException;

  BufferedSink write(Source a, long b) throws IOException;

  BufferedSink writeUtf8(String a) throws IOException;

  BufferedSink writeUtf8(String a, int b, int c) throws IOException;

  BufferedSink writeUtf8CodePoint(int a) throws IOException;

  BufferedSink writeString(String a, Charset b) throws IOException;

  BufferedSink writeString(String a, int b, int c, Charset d) throws IOException;

  BufferedSink writeByte(int a) throws IOException;

  BufferedSink writeShort(int a) throws IOException;

  BufferedSink writeShortLe(int a) throws IOException;

  BufferedSink writeInt(int a) throws IOException;

  BufferedSink writeIntLe(int a) throws IOException;

  BufferedSink writeLong(long a) throws IOException;

  BufferedSink writeLongLe(long a) throws IOException;

  BufferedSink writeDecimalLong(long a) throws IOException;

  BufferedSink writeHexadecimalUnsignedLong(long a) throws IOException;

  void flush() throws IOException;

  BufferedSink emit() throws IOException;

  BufferedSink emitCompleteSegments() throws IOException;
}
