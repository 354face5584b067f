"""The main job for real: a daemon, an app, a key, a release, a device, a verification.

Run by `make demo`; `make demo WWW=path` takes another web build. Everything it makes is
under build/demo, and the daemon stops when it ends.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = ROOT / "build/demo"
APP = "042a1261"


def say(text: str = "") -> None:
    """Print at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(text: str) -> NoReturn:
    """Print and end."""
    sys.exit(f"demo: {text}")


def free_address() -> str:
    """Return a free loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run(*arguments: str | Path, env: dict[str, str], module: str = "privyseal") -> Any:
    """Run a command, show it, and return its JSON answer."""
    words = [str(a) for a in arguments]
    say(f"  $ {module.removesuffix('.main')} {' '.join(words)}".replace(f"{ROOT}/", ""))
    flags = ["--json"] if module == "privyseal" else []
    done = subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, "-m", module, *words, *flags],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        fail(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout) if flags else None


def fetch(url: str) -> bytes:
    """Fetch a URL of the demo's own gateway."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - loopback
        data: bytes = response.read()
        return data


def start(env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the daemon and wait until it answers."""
    with (HOME / "privyseald.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "privyseald.main", "serve"], env=env, stderr=log
        )
    for _ in range(300):
        if daemon.poll() is not None:
            fail(f"the daemon did not start; see {HOME / 'privyseald.log'}")
        try:
            fetch(f"http://{env['PRIVYSEALD_GATEWAY']}/healthz")
        except OSError:
            time.sleep(0.1)
        else:
            return daemon
    daemon.kill()
    fail("the daemon did not answer in 30 seconds")


def check_as_device(gateway: str, key: Path) -> None:
    """Do what a device does: ask, download, verify with the public key of its binary."""
    from privyseal.verify.keys import load_public_key, verify_signature

    query = "channelName=production&platform=0&appVersionName=1.0.0&appVersionCode=1"
    answer = json.loads(fetch(f"{gateway}/v1/apps/{APP}/bundles/latest?{query}"))
    say(f"  the gateway offers bundle {answer['bundleId']} at {answer['url']}")
    bundle = fetch(answer["url"])
    signature = base64.b64decode(answer["signature"])
    verify_signature(load_public_key(key.read_bytes()), signature, bundle)
    say(f"  {len(bundle):,} bytes downloaded; the signature verifies with the app's public key")


def main() -> None:
    """Run the demo."""
    www = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "deploy/demo/www"
    if not (www / "index.html").exists():
        fail(f"{www} is no web build: it has no index.html")
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    data, store = HOME / "data", HOME / "artifacts"
    store.mkdir()
    gateway = free_address()
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PRIVYSEAL")},
        "PRIVYSEALD_DATA": str(data),
        "PRIVYSEALD_LISTEN_TOKENS": free_address(),
        "PRIVYSEALD_LISTEN_CERTIFICATES": free_address(),
        "PRIVYSEALD_GATEWAY": gateway,
        "PRIVYSEALD_ARTIFACTS": str(store),
        "PRIVYSEAL_PROFILE": str(data / "admin/profile.toml"),
    }
    say("1. A data directory: certificates, keys, log, first admin")
    run("init", env=env, module="privyseald.main")
    say("2. The daemon")
    daemon = start(env)
    say(f"  running; its log is {HOME / 'privyseald.log'}")
    try:
        steps(env, www, data, store, f"http://{gateway}")
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(20)
    say(f"Done. Everything is under {HOME}; the daemon has stopped.")


def steps(env: dict[str, str], www: Path, data: Path, store: Path, gateway: str) -> None:
    """Do what an admin, an officer, CI, a device and an auditor do."""
    statement, key, receipt = HOME / "statement.pem", HOME / "public.pem", HOME / "receipt.json"
    log_key = data / "log.vkey"
    say("3. An app, and its signing key, made in the daemon")
    run("app", "create", "--app-id", APP, "--statement-key", statement, env=env)
    run("live-update", "generate-signing-key", "--app-id", APP, "--public", key, env=env)
    run("live-update", "create-channel", "--app-id", APP, "--name", "production", env=env)
    say("4. A token for CI: it may sign and release, and cannot read a key")
    roles = ("--role", "signer", "--role", "releaser")
    made = run("access", "create-token", "--app-id", APP, "--name", "ci", *roles, env=env)
    ci = {
        **env,
        "PRIVYSEAL_PROFILE": os.devnull,
        "PRIVYSEAL_SERVER": env["PRIVYSEALD_LISTEN_TOKENS"],
        "PRIVYSEAL_CA": str(data / "tls/ca.pem"),
        "PRIVYSEAL_TOKEN": made["secret"],
    }
    say("5. CI bundles, signs, uploads, registers and deploys")
    release = run(
        *("publish", "--app-id", APP, "--build-dir", www, "--channel", "production"),
        *("--storage", store, "--public-url", f"{gateway}/artifacts", "--receipt", receipt),
        env=ci,
    )
    say(f"  {release['release']}, version {release['version']}, sha256 {release['sha256']}")
    say("6. A device asks for updates")
    check_as_device(gateway, key)
    say("7. An auditor verifies the bundle offline, and the whole log")
    bundle = store / APP / f"{release['sha256']}.zip"
    keys = ("--public-key", statement, "--log-key", log_key)
    proven = run("verify", bundle, "--receipt", receipt, *keys, env=env)
    say(f"  verified: leaf {proven['logIndex']} of a log of {proven['treeSize']}")
    checked = run("log", "verify", "--log-key", log_key, env=env)
    say(f"  verified: {checked['size']} leaves, {checked['keyVersions']} key versions")


if __name__ == "__main__":
    main()
