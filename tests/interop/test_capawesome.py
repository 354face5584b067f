"""Capawesome's Android client, unmodified, compiled with javac, against the gateway.

It insists on https and port 443, so it reaches the gateway through a CONNECT proxy.
"""

import base64
import json
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from privyseald.adapters import pki

from tests.conftest import Daemon
from tests.interop.conftest import CACHE, need

HOST = "updates.example.test"
JARS = [f"/usr/share/java/{name}.jar" for name in ("okhttp", "okio", "zip4j", "com.android.json")]
HERE = Path(__file__).with_name("android")


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        target.close()


def proxy_to(port):
    """Start a CONNECT proxy that leads everywhere to one local port; return its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            caller, _ = listener.accept()
            caller.recv(65536)
            caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            server = socket.create_connection(("127.0.0.1", port))
            for pair in ((caller, server), (server, caller)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


@pytest.fixture(scope="module")
def classes(client):
    need("javac")
    source = client("@capawesome/capacitor-live-update-8.4.3") / "android/src/main/java"
    out = CACHE / f"capawesome-classes.{os.getpid()}"
    shutil.rmtree(out, ignore_errors=True)
    files = [*HERE.rglob("*.java"), *source.rglob("*.java")]
    done = subprocess.run(
        ["javac", "-nowarn", "-d", out, "-cp", ":".join(JARS), *files],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    yield out
    shutil.rmtree(out)


@pytest.fixture(scope="module")
def https(tmp_path_factory, classes):
    folder = tmp_path_factory.mktemp("https")
    daemon = Daemon(folder / "data")
    daemon.init()
    certificate, key = pki.issue(daemon.data / "tls", common_name=HOST, hosts=[HOST], days=1)
    (folder / "gateway.pem").write_bytes(certificate)
    (folder / "gateway.key").write_bytes(key)
    (folder / "store").mkdir()
    daemon.env |= {
        "PRIVYSEALD_GATEWAY_CERTIFICATE": str(folder / "gateway.pem"),
        "PRIVYSEALD_GATEWAY_KEY": str(folder / "gateway.key"),
        "PRIVYSEALD_ARTIFACTS": str(folder / "store"),
        "PRIVYSEALD_PUBLIC_URL": f"https://{HOST}",
    }
    subprocess.run(
        [
            *("keytool", "-importcert", "-noprompt", "-alias", "ca", "-storetype", "PKCS12"),
            *("-file", daemon.data / "tls/ca.pem", "-keystore", folder / "trust"),
            *("-storepass", "changeit"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    daemon.start()
    daemon.folder, daemon.proxy = folder, proxy_to(daemon.ports[2])
    yield daemon
    assert daemon.stop() == 0


@pytest.fixture
def device(https, classes, tmp_path):
    def run(app, key, *calls, version="1.0.0", code="1", phone="device"):
        done = subprocess.run(
            [
                *("java", "-Dhttps.proxyHost=127.0.0.1", f"-Dhttps.proxyPort={https.proxy}"),
                f"-Djavax.net.ssl.trustStore={https.folder / 'trust'}",
                f"-Dapp.versionName={version}",
                f"-Dapp.versionCode={code}",
                "-Djavax.net.ssl.trustStorePassword=changeit",
                *("-cp", ":".join([str(classes), *JARS]), "Device"),
                *(tmp_path / phone, app, HOST, key, *calls),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        *answers, page = done.stdout.splitlines()
        return [json.loads(answer) for answer in answers], page

    return run


def release(daemon, tmp_path, www):
    app = "cap-" + uuid.uuid4().hex[:8]
    key = tmp_path / f"{app}.pem"
    daemon.ok("app", "create", "--app-id", app)
    daemon.ok("live-update", "generate-signing-key", "--app-id", app, "--public", key)
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    (www / "index.html").write_text(app)
    made = daemon.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--channel", "production"),
        *("--storage", daemon.folder / "store", "--public-url", f"https://{HOST}/artifacts"),
    )
    return app, key, daemon.folder / "store" / app / f"{made['sha256']}.zip"


def test_a_whole_update(https, device, www, tmp_path):
    app, key, _ = release(https, tmp_path, www)

    answers, page = device(app, key, "sync", "reload", "getCurrentBundle")

    assert answers[0]["nextBundleId"] == answers[2]["bundleId"]
    for path in www.rglob("*"):
        if path.is_file():
            assert (Path(page) / path.relative_to(www)).read_bytes() == path.read_bytes()
    again, _ = device(app, key, "sync")
    assert again[0].get("nextBundleId") is None


class Between(BaseHTTPRequestHandler):
    """Passes on what the gateway answers, changed on its way."""

    def do_GET(self):
        url = f"https://127.0.0.1:{self.server.gateway}{self.path}"
        unverified = ssl._create_unverified_context()
        with urllib.request.urlopen(url, context=unverified, timeout=20) as answer:
            body = self.server.change(self.path, answer.read())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def between(https, device, monkeypatch):
    """Update with somebody between, who has a certificate that the device takes."""

    def update(app, key, change):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(https.folder / "gateway.pem", https.folder / "gateway.key")
        with ThreadingHTTPServer(("127.0.0.1", 0), Between) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            server.gateway, server.change = https.ports[2], change
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setattr(https, "proxy", proxy_to(server.server_address[1]))
            answers, page = device(app, key, "sync")
            server.shutdown()
        return answers, page

    return update


def flipped(path, body):
    """Flip a bit of the signature that goes with a bundle."""
    if "/bundles/latest" not in path:
        return body
    told = json.loads(body)
    signature = bytearray(base64.b64decode(told["signature"]))
    signature[-1] ^= 1
    told["signature"] = base64.b64encode(signature).decode()
    return json.dumps(told).encode()


def test_what_was_only_passed_on_is_taken(https, between, www, tmp_path):
    app, key, _ = release(https, tmp_path, www)
    answers, _ = between(app, key, lambda _, body: body)
    assert answers[0]["nextBundleId"]


@pytest.mark.parametrize("what", ["zip", "signature", "other"])
def test_what_was_tampered_with_is_refused(https, between, www, tmp_path, what):
    app, key, _ = release(https, tmp_path, www)
    _, _, other = release(https, tmp_path, www)
    of_another_app = other.read_bytes()

    def change(path, body):
        if what == "signature" or "/artifacts/" not in path:
            return flipped(path, body) if what == "signature" else body
        half = len(body) // 2
        changed = body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :]
        return changed if what == "zip" else of_another_app

    answers, page = between(app, key, change)

    assert answers == [{"rejected": "Signature verification failed."}]
    assert page == "public"


def test_what_was_tampered_with_at_the_gateway_is_not_served(https, device, www, tmp_path):
    app, key, bundle = release(https, tmp_path, www)
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"!")

    answers, page = device(app, key, "sync")

    assert answers == [{"rejected": "Bundle could not be downloaded."}]
    assert page == "public"


def test_another_key_in_the_binary_refuses_the_signature(https, device, www, tmp_path):
    app, _, _ = release(https, tmp_path, www)
    _, other_key, _ = release(https, tmp_path, www)

    answers, page = device(app, other_key, "sync")

    assert answers == [{"rejected": "Signature verification failed."}]
    assert page == "public"


def test_a_release_without_a_signature_for_the_plugin_is_refused(https, device, www, tmp_path):
    _, key, _ = release(https, tmp_path, www)
    app = "bare-" + uuid.uuid4().hex[:8]
    https.ok("app", "create", "--app-id", app)
    https.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    https.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--channel", "production"),
        *("--storage", https.folder / "store", "--public-url", f"https://{HOST}/artifacts"),
    )

    answers, page = device(app, key, "sync")

    assert answers == [{"rejected": "Bundle does not contain a signature."}]
    assert page == "public"


@pytest.mark.parametrize(
    ("change", "served"),
    [
        (
            "UPDATE signed_releases SET receipt = replace(receipt, 'capawesome', 'capaweSome')",
            False,
        ),
        # The log says what is deployed, not these rows.
        ("UPDATE releases SET counter = 7, artifact_url = 'https://evil.example/x.zip'", True),
        ("UPDATE channels SET log_index = 0, counter = 7", True),
        ("UPDATE log_leaves SET leaf = replace(leaf, '\"deploy\"', '\"refusal\"')", False),
        ("UPDATE log_head SET note = replace(note, 'a', 'b')", False),
    ],
)
def test_a_changed_row_reaches_no_device(https, device, www, tmp_path, change, served):
    app, key, _ = release(https, tmp_path, www)
    database = sqlite3.connect(https.data / "privyseal.db", isolation_level=None)
    table = change.split()[1]
    database.execute(f"CREATE TEMP TABLE kept AS SELECT * FROM {table}")
    where = "" if table.startswith("log_") else f" WHERE app = '{app}'"
    try:
        database.execute(change + where)
        answers, page = device(app, key, "sync")
    finally:
        database.execute(f"DELETE FROM {table}")
        database.execute(f"INSERT INTO {table} SELECT * FROM kept")
        database.close()
    if served:
        assert answers[0]["nextBundleId"].startswith("1-")
        return
    assert answers[0].get("nextBundleId") is None
    assert page == "public"
    answers, _ = device(app, key, "sync")
    assert answers[0]["nextBundleId"]


def test_old_and_new_binaries_update_through_a_whole_rotation(https, device, www, tmp_path):
    """The unmodified client, built with the old key and with the new: both get every release."""
    app, key, _ = release(https, tmp_path, www)
    new_key = tmp_path / "new.pem"
    register = ("native", "register", "--app-id", app, "--platform", "android", "--plugin")
    old = {"version": "1.0.0", "code": "10", "phone": "old"}
    new = {"version": "2.0.0", "code": "20", "phone": "new"}

    def build(public, version, code, phone):
        words = ("capawesome", "--version-name", version, "--version-code", code)
        https.ok(*register, *words, "--public-key", public)

    def publish():
        (www / "index.html").write_text(uuid.uuid4().hex)
        return https.ok(
            *("publish", "--app-id", app, "--build-dir", www, "--channel", "production"),
            *("--storage", https.folder / "store", "--public-url", f"https://{HOST}/artifacts"),
        )["release"].rsplit("/", 1)[-1]

    def updates(public, phone):
        answers, _ = device(app, public, "sync", "reload", **phone)
        return (answers[0].get("nextBundleId") or "").partition("-")[0]

    build(key, **old)
    assert updates(key, old) == "1"
    words = ("rotation", "start", "--app-id", app, "--reason", "test")
    started = https.ok(*words)
    new_key.write_text(https.ok("key", "show", started["newVersion"])["publicKey"])
    build(new_key, **new)
    assert updates(new_key, new) == "", "nothing is signed for it yet"
    for step in ("distributing", "overlap", "promoted"):
        assert https.ok("rotation", "advance", started["rotation"])["state"] == step
        if step == "distributing":
            assert updates(new_key, new) == "1", "what is deployed was signed again"
        number = publish()
        assert updates(key, old) == number, step
        assert updates(new_key, new) == number, step
    number = publish()
    status = https.run("rotation", "status", "--app-id", app)
    assert "served by version 1" in status.out
    # The rotation waits for the old build, whose devices still ask.
    assert https.run("rotation", "advance", started["rotation"]).code == 1
    assert updates(key, old) == number
    assert updates(new_key, new) == number
