"""Many handshakes at once, while certificates change: the daemon lives."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
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


def test_strangers_write_no_lines_into_the_daemons_log(tmp_path):
    """Each line is JSON of the daemon's own, whatever is sent to its ports."""
    daemon = Daemon(tmp_path / "data", own_interpreter=True)
    daemon.init()
    daemon.start()
    before = daemon.log_text().count("\n")
    for port in daemon.ports[:2]:
        for data in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(200), b"\x16\x03\x01\x00\x05hello"):
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", port), 5) as stranger:
                    stranger.sendall(data)
    second = subprocess.run(
        [sys.executable, "-m", "privyseald.main", "serve"],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert second.returncode == 1
    (told,) = [line for line in second.stderr.splitlines() if not line.startswith("{")]
    assert "is another daemon running?" in told
    assert daemon.stop() == 0
    lines = daemon.log_text().splitlines()
    assert all(json.loads(line)["event"] for line in lines)
    assert len(lines) < before + 10
