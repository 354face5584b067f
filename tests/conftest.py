"""A real daemon, on loopback, with real TLS; and the command line as its user runs it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import spy, zygote

# A shell's background job ignores SIGINT, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Tests keep artifacts in their own temporary directories.
FROM_HERE = f'artifact_sources = ["{Path(tempfile.gettempdir()).resolve().as_uri()}/"]\n'


@functools.cache
def new_directory() -> Path:
    """A data directory as `privyseald init` makes it; each test takes a copy."""
    folder = Path(tempfile.mkdtemp(prefix="privyseal-test-"))
    atexit.register(shutil.rmtree, folder)
    subprocess.run(
        [sys.executable, "-m", "privyseald.main", "init", "--data", folder / "data"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder / "data"


def pytest_sessionfinish(session):
    """On CI a skip is not a pass."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def nothing_private_was_asked_of_a_token():
    """Of all that the suite has the product do with tokens."""
    yield
    logs, calls = spy.check()
    if logs:
        print(f"\n{calls:,} PKCS #11 calls in {logs} logs: no private value read, no key wrapped")


@functools.cache
def _ports() -> Iterator[int]:
    """Return this worker's share of the ports that the kernel gives to no client, in any order."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (15_000, first) if first > 20_000 else (1_024, first)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    share = range(low + worker, high, workers)
    return iter(random.SystemRandom().sample(share, len(share)))


def free_port() -> int:
    """Return a port for a server: none twice, as who has it may be starting or stopped."""
    for port in _ports():
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@dataclass
class Daemon:
    data: Path
    settings: str = f"principal_rate = 0\napp_rate = 0\n{FROM_HERE}"
    env: dict = field(default_factory=dict)
    process: subprocess.Popen | zygote.Process | None = None
    own_interpreter: bool = False
    """Whether it is started as users start it, and not from a process with its imports."""

    def init(self) -> None:
        self.ports = [free_port() for _ in range(3)]
        tokens, certificates, gateway = (f"127.0.0.1:{port}" for port in self.ports)
        self.tokens, self.gateway = tokens, f"http://{gateway}"
        self.env = {
            **os.environ,
            "PRIVYSEALD_DATA": str(self.data),
            "PRIVYSEALD_LISTEN_TOKENS": tokens,
            "PRIVYSEALD_LISTEN_CERTIFICATES": certificates,
            "PRIVYSEALD_GATEWAY": gateway,
            "PRIVYSEALD_KEYHOLDERS": "2",
        }
        shutil.copytree(new_directory(), self.data)
        profile = self.data / "admin/profile.toml"
        lines = profile.read_text().splitlines()
        lines[0] = f'server = "{certificates}"'
        lines[-2:] = [
            f'storage = "{self.data / "artifacts"}"',
            f'public_url = "{self.gateway}/artifacts"',
        ]
        profile.write_text("\n".join(lines) + "\n")
        (self.data / "privyseald.toml").write_text(self.settings)

    def twin(self) -> Daemon:
        """Return another daemon on the same data directory and database, not started."""
        other = Daemon(self.data)
        other.ports = [free_port() for _ in range(3)]
        tokens, certificates, gateway = (f"127.0.0.1:{port}" for port in other.ports)
        other.tokens, other.gateway = tokens, f"http://{gateway}"
        other.env = {
            **self.env,
            "PRIVYSEALD_LISTEN_TOKENS": tokens,
            "PRIVYSEALD_LISTEN_CERTIFICATES": certificates,
            "PRIVYSEALD_GATEWAY": gateway,
        }
        return other

    def start(self) -> None:
        self.spawn()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.log.close()
                raise AssertionError(self.log_text())
            try:
                with socket.create_connection(("127.0.0.1", self.ports[2]), 0.2):
                    return
            except OSError:
                time.sleep(0.03)
        raise AssertionError("the daemon did not start: " + self.log_text())

    def spawn(self) -> None:
        """Start it, and do not wait."""
        self.log = (self.data / "daemon.log").open("ab")
        if self.own_interpreter:
            command = [sys.executable, "-m", "privyseald.main", "serve"]
            self.process = subprocess.Popen(command, env=self.env, stderr=self.log)
            return
        with open(os.devnull, "r+b") as null:
            streams = (null, null, self.log)
            self.process = zygote.Process("daemon", ["serve"], env=self.env, streams=streams)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.log.close()
        return code

    def keyholders(self, name: str = "keyholder") -> list[int]:
        """Return the ids of the processes whose name begins so: keyholders, or with a token."""
        found, looked = [], [self.process.pid]
        while looked:
            for task in Path(f"/proc/{looked.pop()}/task").glob("*/children"):
                for child in task.read_text().split():
                    looked.append(int(child))
                    with contextlib.suppress(OSError):
                        if Path(f"/proc/{child}/comm").read_text().startswith(name):
                            found.append(int(child))
        return found

    def log_text(self) -> str:
        return (self.data / "daemon.log").read_text()

    def client_env(self, **extra: str) -> dict:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PRIVYSEAL")}
        return {**env, "PRIVYSEAL_PROFILE": str(self.data / "admin/profile.toml"), **extra}

    def run(
        self, *arguments: str, cwd: Path | None = None, stdin: str | None = None, **env: str
    ) -> Result:
        given = [str(argument) for argument in arguments]
        done = zygote.run("client", given, env=self.client_env(**env), cwd=cwd, stdin=stdin)
        return Result(*done)

    def command(self, *arguments: str) -> Result:
        """Run a command of the daemon's own, on its data directory."""
        return Result(*zygote.run("daemon", [str(a) for a in arguments], env=self.env))

    def ok(self, *arguments: str, **env: str) -> dict:
        result = self.run(*arguments, "--json", **env)
        assert result.code == 0, result.err
        return result.json

    def token(self, app: str, *roles: str) -> dict:
        flags = [flag for role in roles for flag in ("--role", role)]
        made = self.ok("access", "create-token", "--app-id", app, "--name", "test", *flags)
        return {
            "PRIVYSEAL_PROFILE": str(self.empty_profile()),
            "PRIVYSEAL_SERVER": self.tokens,
            "PRIVYSEAL_CA": str(self.data / "tls/ca.pem"),
            "PRIVYSEAL_TOKEN": made["secret"],
            "NAME": made["token"],
        }

    def person(self, name: str, *roles: str, app: str = "-") -> dict:
        """Issue a certificate, grant it roles, and return the environment that uses it."""
        folder = self.data / name
        issued = self.command("issue-certificate", name, "--out", folder)
        assert issued.code == 0, issued.err
        for role in roles:
            flags = ("--principal", f"certificate:{name}", "--role", role, "--app-id", app)
            self.ok("grant", "create", *flags)
        return {"PRIVYSEAL_PROFILE": str(folder / "profile.toml")}

    def entries(self) -> list[dict]:
        """Return every leaf of the log."""
        return [entry["leaf"] for entry in self.ok("log", "list", "--last", "0")["entries"]]

    def empty_profile(self) -> Path:
        path = self.data / "empty.toml"
        path.write_text("")
        return path


@contextlib.contextmanager
def custodian(folder: Path, token=None):
    """A custodian, for keyholders without a daemon; its key is in `folder`."""
    from privyseald.keyholder.custody import Custody
    from privyseald.keyholder.custody_settings import CustodySettings

    kek = folder / "kek"
    if not kek.exists():
        kek.write_bytes(os.urandom(32))
        kek.chmod(0o600)
    running = Custody(CustodySettings(data=str(folder), token=token))
    running.start()
    assert running.opened
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory):
    running = Daemon(tmp_path_factory.mktemp("daemon") / "data")
    running.init()
    running.start()
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0


@pytest.fixture
def www(tmp_path):
    root = tmp_path / "www"
    (root / "assets").mkdir(parents=True)
    (root / "index.html").write_text("<!doctype html><h1>Hello</h1>")
    (root / "assets/app.js").write_text("console.log('hello');\n" * 100)
    (root / "assets/näme with space.css").write_text("body { color: teal }")
    (root / "assets/empty.txt").write_bytes(b"")
    return root
