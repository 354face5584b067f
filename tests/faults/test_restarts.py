"""Keyholders that are restarted while clients come and go: nobody waits for it."""

import contextlib
import os
import signal
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conftest import Daemon

LIMIT = 4


def kill_keyholders(daemon):
    killed = 0
    for pid in daemon.keyholders():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


@pytest.mark.parametrize("seconds", [8, pytest.param(240, marks=pytest.mark.long)])
def test_new_clients_are_served_while_keyholders_are_restarted(tmp_path, seconds):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    ca = grpc.ssl_channel_credentials((daemon.data / "tls/ca.pem").read_bytes())
    end = time.monotonic() + seconds
    took, failed = [], []

    def connect():
        while time.monotonic() < end and not failed:
            began = time.monotonic()
            options = [("grpc.use_local_subchannel_pool", 1)]
            try:
                with grpc.secure_channel(daemon.tokens, ca, options) as to:
                    stub = health_pb2_grpc.HealthStub(to)
                    stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT)
            except grpc.RpcError as error:
                failed.append(f"{error.code().name}: {error.details()}")
            took.append(time.monotonic() - began)

    threads = [threading.Thread(target=connect) for _ in range(2)]
    for thread in threads:
        thread.start()
    killed = 0
    while time.monotonic() < end and not failed:
        killed += kill_keyholders(daemon)
        time.sleep(1.1)  # a keyholder that lives for less is restarted after a pause
    for thread in threads:
        thread.join()

    try:
        assert not failed
        assert killed > seconds / 2
        assert max(took) < LIMIT
    finally:
        if failed:
            daemon.process.kill()
        assert daemon.stop() == (-signal.SIGKILL if failed else 0)
