"""Unmodified device clients from npm, at pinned versions, verified by digest."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENTS = {
    "cordova-plugin-ionic-5.5.3": "f2ba2b6f",
    "@capawesome/capacitor-live-update-8.4.3": "953946bf",
    "@capgo/cli-8.68.1": "f4228db5",
    "appcenter-cli-3.0.4": "8eed0cbe",
    "lodash-4.17.21": "6a087ac9",
    "@expo/code-signing-certificates-0.0.6": "0460d57d",
    "node-forge-1.4.3": "0a872d93",
}
# A download that stalls is begun anew; npm's own limit is 5 minutes.
PATIENCE = ("--fetch-timeout=40000", "--fetch-retries=4", "--fetch-retry-mintimeout=1000")
CACHE = Path(__file__).resolve().parents[2] / "build/npm"


def need(tool):
    if shutil.which(tool):
        return
    message = f"{tool} is missing; run `sh .ci/system-packages interop`"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def package(spec, prefix=""):
    """Return the folder of an npm package, fetched once."""
    need("npm")
    name, _, version = spec.rpartition("-")
    folder = CACHE / spec.replace("/", "-").lstrip("@")
    if folder.exists():
        return folder / "package"
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = CACHE / f"{folder.name}.{os.getpid()}"
    scratch.mkdir()
    done = subprocess.run(
        ["npm", "pack", "--silent", *PATIENCE, f"{name}@{version}"],
        cwd=scratch,
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    archive = scratch / done.stdout.split()[-1]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest.startswith(prefix), f"{spec} is not the package that was pinned: {digest}"
    # Not tarfile: its safe filter is missing from the Python 3.11.2 of Debian 12.
    subprocess.run(["tar", "-xzf", archive, "-C", scratch, "--no-same-owner"], check=True)
    try:
        scratch.rename(folder)
    except OSError:
        shutil.rmtree(scratch)
    return folder / "package"


@pytest.fixture(scope="session")
def npm_package():
    return package


@pytest.fixture(scope="session")
def client():
    return lambda spec: package(spec, CLIENTS[spec])
