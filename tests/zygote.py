"""Processes of the command lines without the time that their imports take.

The tests run the client some thousand times and start the daemon some hundred times, and most
of that time would go into imports. A process that has imported the program is forked for each
run: what runs is the real program, in a process of its own, with its own arguments,
environment, directory and standard streams. Runbooks, README and benchmarks run it as users do.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_CLIENT = (
    *("__main__", "cli.main", "cli.access", "cli.app", "cli.approval", "cli.artifact"),
    *("cli.backup", "cli.ceremony", "cli.common", "cli.deploy", "cli.doctor", "cli.grant"),
    *("cli.key", "cli.live_update", "cli.log", "cli.native", "cli.policy", "cli.publish"),
    *("cli.rotation", "cli.verify", "connection", "bundling.bundle", "bundling.tree"),
    *("devices", "native_project", "verify.receipt", "verify.schemes", "expo_export"),
)
PROGRAMS = {
    "client": ("privyseal.__main__", tuple(f"privyseal.{module}" for module in _CLIENT)),
    "daemon": ("privyseald.main", ()),
}
"""The module whose `main` each program is, and what it imports only when it is needed."""


def _serve(program: str, link: socket.socket) -> None:
    """Fork for each connection that comes over the link, until it closes."""
    module, more = PROGRAMS[program]
    for name in (module, *more):
        importlib.import_module(name)
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
                _answer(module, caller)
            os._exit(0)
        os.close(handles[0])


def _answer(module: str, caller: socket.socket) -> None:
    """Run a command line in another fork, and tell its id and its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(caller, 8, 3)
    length, data = int.from_bytes(head), b""
    while len(data) < length:
        data += caller.recv(length - len(data))
    child = os.fork()
    if child == 0:
        caller.close()
        _run(module, json.loads(data), streams)
    caller.sendall(child.to_bytes(4))
    for handle in streams:
        os.close(handle)
    _, status = os.waitpid(child, 0)
    # Nobody may want to know.
    with contextlib.suppress(BrokenPipeError):
        caller.sendall(os.waitstatus_to_exitcode(status).to_bytes(2, signed=True))


def _run(module: str, request: dict, streams: list[int]) -> None:
    for number, handle in enumerate(streams):
        os.dup2(handle, number)
    os.closerange(3, 1024)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
    sys.argv = [module, *request["arguments"]]
    signal.alarm(request["limit"])
    code = 1
    try:
        importlib.import_module(module).main()
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
def _zygote(program: str, _pid: int) -> socket.socket:
    """Return the link to this process's zygote of a program."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.zygote", program, str(theirs.fileno())],
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


class Process:
    """A running command line, as `subprocess.Popen` has it.

    Args:
        program: One of `PROGRAMS`.
        arguments: Without the program's name.
        env: Its whole environment.
        streams: Its standard input, output and errors.
        cwd: Its directory; the caller's if absent.
        limit: Seconds after which an alarm ends it; 0 for never.
    """

    def __init__(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        streams: tuple[IO[Any], IO[Any], IO[Any]],
        cwd: Path | None = None,
        limit: int = 0,
    ) -> None:
        request = json.dumps(
            {
                "arguments": list(arguments),
                "env": dict(env),
                "cwd": str(cwd or Path.cwd()),
                "limit": limit,
            }
        ).encode()
        self.args = [program, *arguments]
        self.returncode: int | None = None
        self._link, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(_zygote(program, os.getpid()), [b"x"], [theirs.fileno()])
        handles = [stream.fileno() for stream in streams]
        socket.send_fds(self._link, [len(request).to_bytes(8)], handles)
        self._link.sendall(request)
        self.pid = int.from_bytes(self._told(4))

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal, or None while it runs."""
        if self.returncode is None and select.select([self._link], [], [], 0)[0]:
            self.returncode = int.from_bytes(self._told(2), signed=True)
            self._link.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status. Raises TimeoutExpired."""
        if self.returncode is None:
            select.select([self._link], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs still."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def _told(self, length: int) -> bytes:
        told = self._link.recv(length, socket.MSG_WAITALL)
        if len(told) != length:
            raise ConnectionError("the zygote did not tell what became of a command line")
        return told


def run(
    program: str,
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: str | None = None,
    limit: int = 60,
) -> tuple[int, str, str]:
    """Run a command line to its end; return its exit status, output and errors.

    Raises:
        TimeoutExpired: If neither it ends nor the alarm that comes after `limit` seconds.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as errors,
    ):
        given.write((stdin or "").encode())
        given.seek(0)
        streams = (given, out, errors)
        process = Process(program, arguments, env=env, cwd=cwd, streams=streams, limit=limit)
        # It ends by itself a little sooner, by the alarm.
        code = process.wait(limit + 10)
        out.seek(0)
        errors.seek(0)
        return code, out.read().decode(), errors.read().decode()


if __name__ == "__main__":
    _serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
