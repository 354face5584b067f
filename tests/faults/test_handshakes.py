"""Many handshakes at once, while certificates change: the daemon lives."""

import contextlib
import socket
import ssl
import threading
import time

from privyseald.adapters import pki

from tests.conftest import Daemon


def test_handshakes_on_many_threads_while_the_certificate_changes(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    tls = daemon.data / "tls"
    context = ssl.create_default_context(cafile=tls / "ca.pem")
    context.set_alpn_protocols(["h2"])
    hosts = ["localhost", "127.0.0.1"]
    pairs = [pki.issue(tls, common_name="privyseald", hosts=hosts, days=10) for _ in range(2)]
    end = time.monotonic() + 4
    done = [0]

    def connect():
        while time.monotonic() < end and daemon.process.poll() is None:
            with contextlib.suppress(OSError):
                plain = socket.create_connection(("127.0.0.1", daemon.ports[0]), 5)
                with context.wrap_socket(plain, server_hostname="127.0.0.1"):
                    done[0] += 1

    threads = [threading.Thread(target=connect) for _ in range(16)]
    for thread in threads:
        thread.start()
    turn = 0
    while time.monotonic() < end:
        turn += 1
        for name, data in zip(("server.pem", "server.key"), pairs[turn % 2], strict=True):
            (tls / "new").write_bytes(data)
            (tls / "new").replace(tls / name)
        time.sleep(0.1)
    for thread in threads:
        thread.join()

    assert daemon.process.poll() is None, f"the daemon died: {daemon.process.poll()}"
    assert done[0] > 500
    assert daemon.run("app", "list").code == 0
    assert daemon.stop() == 0
