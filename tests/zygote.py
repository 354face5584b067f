"""Processes of the command line without the time that their imports take.

The tests run the command line some thousand times. A process that has imported it is forked
for each run: what runs is the real program, in a process of its own, with its own arguments,
environment, directory and standard streams.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

MODULES = (
    *("__main__", "cli.main", "cli.access", "cli.app", "cli.approval", "cli.artifact"),
    *("cli.backup", "cli.ceremony", "cli.common", "cli.deploy", "cli.doctor", "cli.grant"),
    *("cli.key", "cli.live_update", "cli.log", "cli.native", "cli.policy", "cli.publish"),
    *("cli.rotation", "cli.verify", "connection", "bundling.bundle", "bundling.tree"),
    *("devices", "native_project", "verify.receipt", "verify.schemes", "expo_export"),
)
_MOST_REQUEST = 1 << 20


def _serve(link: socket.socket) -> None:
    """Fork for each connection that comes over the link, until it closes."""
    for module in MODULES:
        importlib.import_module(f"privyseal.{module}")
    # Children are nobody's to wait for: each answers its caller itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    link.sendall(b"r")
    while True:
        _, handles, _, _ = socket.recv_fds(link, 1, 1)
        if not handles:
            return
        if os.fork() == 0:
            link.close()
            with socket.socket(fileno=handles[0]) as caller:
                _answer(caller)
            os._exit(0)
        os.close(handles[0])


def _answer(caller: socket.socket) -> None:
    """Run a command line in another fork, and tell its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(caller, 8, 3)
    length, data = int.from_bytes(head), b""
    while len(data) < length:
        data += caller.recv(length - len(data))
    child = os.fork()
    if child == 0:
        caller.close()
        _run(json.loads(data), streams)
    _, status = os.waitpid(child, 0)
    caller.sendall(os.waitstatus_to_exitcode(status).to_bytes(2, signed=True))


def _run(request: dict, streams: list[int]) -> None:
    for number, handle in enumerate(streams):
        os.dup2(handle, number)
    os.closerange(3, 1024)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = ["privyseal", *request["arguments"]]
    signal.alarm(int(request["limit"]))
    code = 1
    try:
        importlib.import_module("privyseal.__main__").main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


@functools.cache
def _zygote(_pid: int) -> socket.socket:
    """Return the link to this process's zygote."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.zygote", str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    ours.recv(1)

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait(10)

    return ours


def run(
    arguments: list[str], *, env: dict[str, str], cwd: Path | None, stdin: str | None, limit: float
) -> tuple[int, str, str]:
    """Run the command line; return its exit status, output and errors.

    Raises:
        ConnectionError: If nobody tells how it ended. After `limit` seconds an alarm ends it.
    """
    request = json.dumps(
        {"arguments": arguments, "env": env, "cwd": str(cwd or Path.cwd()), "limit": limit}
    ).encode()
    ours, theirs = socket.socketpair()
    with (
        ours,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        given.write((stdin or "").encode())
        given.seek(0)
        with theirs:
            socket.send_fds(_zygote(os.getpid()), [b"x"], [theirs.fileno()])
        streams = [given.fileno(), out.fileno(), errors.fileno()]
        socket.send_fds(ours, [len(request).to_bytes(8)], streams)
        ours.sendall(request)
        # It ends by itself a little sooner, by the alarm below.
        ours.settimeout(limit + 10)
        told = ours.recv(2, socket.MSG_WAITALL)
        if len(told) != 2:
            raise ConnectionError("the zygote did not tell how the command line ended")
        code = int.from_bytes(told, signed=True)
        out.seek(0)
        errors.seek(0)
        return code, out.read().decode(), errors.read().decode()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
