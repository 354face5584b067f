"""Who can write the database reaches no device; who can register a release reaches no host."""

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import threading
import urllib.error
import urllib.request
import uuid

import pytest
from privyseald.gateway.fetch import Sources, is_public

from tests.conftest import Daemon


@pytest.fixture
def served(tmp_path, www):
    """A daemon with two releases on a channel, the newer one deployed."""
    running = Daemon(tmp_path / "data")
    running.init()
    running.start()
    running.ok("app", "create", "--app-id", "app")
    running.ok("live-update", "create-channel", "--app-id", "app", "--name", "production")
    running.made = [publish(running, www, text) for text in ("one", "two")]
    yield running
    if running.process.poll() is None:
        running.stop()


def publish(daemon, www, text):
    (www / "index.html").write_text(text)
    return daemon.ok(*("publish", "--app-id", "app", "--build-dir", www, "--channel", "production"))


def ask(daemon, version="1.0.0"):
    """Return the status and answer that a device gets."""
    query = f"channelName=production&platform=0&appVersionName={version}"
    url = f"{daemon.gateway}/v1/apps/app/bundles/latest?{query}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, None


def change(daemon, *statements):
    with sqlite3.connect(daemon.data / "privyseal.db") as database:
        for statement in statements:
            database.execute(statement)
    database.close()


CHANGES = {
    "an older deployment": (
        "UPDATE channels SET counter = 1, log_index = "
        "(SELECT min(log_index) FROM deployments WHERE channel = 'production')"
    ),
    "another address": "UPDATE releases SET artifact_url = 'https://evil.example/x.zip'",
    "no deployment": "UPDATE channels SET counter = 0",
    "another app's row": "UPDATE releases SET app = 'other'",
}


def test_a_changed_row_changes_nothing_for_devices(served):
    before = ask(served)
    assert before[1]["bundleId"].startswith("2-")
    for what, statement in CHANGES.items():
        change(served, statement)
        assert ask(served) == before, what
    served.stop()
    served.start()
    assert ask(served) == before


def test_a_narrowed_release_stays_narrow(served):
    narrow = ("live-update", "set-native-versions", "--app-id", "app", "--build-id", "2")
    served.ok(*narrow, "--android-min", "9.0.0")
    assert ask(served)[0] == 404
    assert ask(served, "9.1.0")[0] == 200
    change(served, "UPDATE releases SET ranges = '[]'")
    assert ask(served)[0] == 404


def test_a_log_that_was_cut_or_changed_is_not_followed(served, www, tmp_path):
    good = ask(served)
    old = tmp_path / "old.db"
    with sqlite3.connect(served.data / "privyseal.db") as database:
        database.execute("VACUUM INTO ?", (str(old),))
    database.close()
    publish(served, www, "three")
    assert ask(served)[1]["bundleId"].startswith("3-")

    served.stop()
    for path in served.data.glob("privyseal.db*"):
        path.unlink()
    shutil.copy(old, served.data / "privyseal.db")
    served.start()
    assert ask(served) == (503, None), "an older database is no reason to go back"

    served.stop()
    (served.data / "last-checkpoint").unlink()
    served.start()
    assert ask(served) == good, "nobody knows of a newer one"
    change(served, "UPDATE log_leaves SET leaf = replace(leaf, 'releases/2', 'releases/1')")
    assert ask(served) == good, "what was read is not read again"
    served.stop()
    served.start()
    assert ask(served) == (503, None)


def snapshot_of(daemon):
    body = json.dumps(
        {
            "channel_name": "production",
            "device": {"binary_version": "1.0.0", "platform": "android"},
        }
    ).encode()
    url = f"{daemon.gateway}/apps/app/channels/check-device"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["data"]


def test_no_release_sends_the_daemon_to_places_of_its_own(served, www):
    """Addresses inside the network, and files outside of the artifacts, all look the same."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        port = server.getsockname()[1]

        def listen():
            while not asked or asked[-1] != "stop":
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                asked.append("connected")
                connection.close()

        listener = threading.Thread(target=listen)
        listener.start()
        told = set()
        for url in (
            f"http://127.0.0.1:{port}/latest/meta-data/",
            f"https://127.0.0.1:{port}/x.zip",
            f"https://localhost:{port}/x.zip",
            (served.data / "kek").as_uri(),
            "file:///nonexistent",
            f"{served.gateway}/artifacts/app/../../kek",
            f"{served.gateway}/artifacts/app/%2e%2e/%2e%2e/kek",
        ):
            (www / "index.html").write_text(uuid.uuid4().hex)
            version = uuid.uuid4().hex
            sign_only(served, www, version)
            register = ("live-update", "register-artifact", "--app-id", "app", "--version", version)
            number = served.ok(*register, "--no-look", "--artifact-url", url)["buildId"]
            deploy = ("deploy", "web", "--app-id", "app", "--build-id", number)
            served.ok(*deploy, "--destination", "production")
            with pytest.raises(urllib.error.HTTPError) as error:
                urllib.request.urlopen(snapshot_of(served)["url"], timeout=20)
            told.add((error.value.code, error.value.read()))
            error.value.close()
        asked.append("stop")
        listener.join()
    assert asked == ["stop"]
    assert len(told) == 1
    assert next(iter(told))[0] == 503


def fetch(url, method="GET", **headers):
    """Return status, bytes and headers of an answer."""
    request = urllib.request.Request(url, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


def test_what_lies_among_the_artifacts_is_served_as_it_was_signed_or_not_at_all(served):
    url = ask(served)[1]["url"]
    file = served.data / "artifacts" / url.partition("/artifacts/")[2]
    status, bundle, headers = fetch(url)
    assert (status, headers["content-type"]) == (200, "application/zip")
    assert hashlib.sha256(bundle).hexdigest() == ask(served)[1]["checksum"]
    assert fetch(url, Range="bytes=10-19")[:2] == (206, bundle[10:20])
    # Whoever uploads can write there.
    file.write_bytes(bundle[:-1] + b"!")
    (file.parent / "evil.html").write_text("<script>")
    assert fetch(url)[:2] == (200, bundle), "the copy that was verified"
    status, told, _ = fetch(url.rpartition("/")[0] + "/evil.html")
    assert (status, b"script" in told) == (404, False)
    head = fetch(url.rpartition("/")[0] + "/evil.html", "HEAD")
    assert (head[0], head[1], head[2]["content-length"]) == (200, b"", "8")
    assert fetch(url.rpartition("/")[0] + "/nothing.html", "HEAD")[0] == 404
    served.stop()
    served.start()
    assert fetch(url)[0] == 503, "it is not what was signed, and no copy is trusted by its name"
    file.write_bytes(bundle)
    assert fetch(url)[:2] == (200, bundle)
    served.ok(
        *("live-update", "withdraw-release", "--app-id", "app", "--build-id", "2"),
        *("--reason", "broken"),
    )
    assert fetch(url)[0] == 404


def test_an_artifact_of_the_gateways_own_is_below_its_apps_id(served, www):
    version = uuid.uuid4().hex
    sign_only(served, www, version)
    register = ("live-update", "register-artifact", "--app-id", "app", "--version", version)
    url = f"{served.gateway}/artifacts/other/x.zip"
    done = served.run(*register, "--no-look", "--artifact-url", url)
    assert done.code == 1
    assert f"below {served.gateway}/artifacts/app/ alone" in done.err


def test_files_of_a_manifest_are_served_as_they_were_signed(served, www):
    (www / "a b.txt").write_text("text")
    (www / "index.html").write_text("three")
    told = served.ok(
        *("publish", "--app-id", "app", "--build-dir", www, "--channel", "production"),
        *("--artifact-type", "manifest"),
    )
    base = told["artifactUrl"].rpartition("/")[0]
    assert fetch(told["artifactUrl"])[0] == 200
    assert fetch(f"{base}/a%20b.txt")[:2] == (200, b"text")
    assert fetch(f"{base}/other.txt")[0] == 404
    folder = served.data / "artifacts" / base.partition("/artifacts/")[2]
    (folder / "index.html").write_text("evil!")
    assert fetch(f"{base}/index.html")[0] == 503


def sign_only(daemon, www, version):
    """Sign a bundle as publish does, without uploading or registering it."""
    from privyseal.bundling.bundle import write_bundle
    from privyseal.connection import Connection, load_profile
    from privyseal.v1 import signing_service_pb2 as pb

    bundle = write_bundle(www, daemon.data / "signed.zip")
    with Connection(load_profile(str(daemon.data / "admin/profile.toml"))) as to:
        request = pb.SignReleaseRequest(
            parent="apps/app",
            version=version,
            bundle_sha256=bundle.sha256,
            bundle_length=bundle.length,
            manifest_sha256=bundle.manifest_sha256,
        )
        to.call(to.signing.SignRelease, request)


def test_a_device_that_does_not_read_costs_little(served, www):
    (www / "big.bin").write_bytes(os.urandom(20 << 20))
    publish(served, www, "big")
    base = snapshot_of(served)["url"].removesuffix("pro-manifest.json")
    with urllib.request.urlopen(base + "big.bin", timeout=20) as answer:
        whole = answer.read()
    assert hashlib.sha256(whole).digest() == hashlib.sha256((www / "big.bin").read_bytes()).digest()

    def memory():
        with open(f"/proc/{served.process.pid}/status") as file:
            return next(int(x.split()[1]) for x in file if x.startswith("VmRSS")) / 1024

    before, waiting = memory(), []
    host, port = served.gateway.removeprefix("http://").split(":")
    path = base.removeprefix(served.gateway) + "big.bin"
    for _ in range(40):
        to = socket.create_connection((host, int(port)), 10)
        to.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        to.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        waiting.append(to)
    for to in waiting:
        to.settimeout(10)
        assert to.recv(100)
    assert memory() - before < 100
    assert ask(served)[0] == 200
    for to in waiting:
        to.close()


def test_deep_json_of_a_device_is_a_bad_request(served):
    url = f"{served.gateway}/apps/app/channels/check-device"
    request = urllib.request.Request(url, b"[" * 60_000, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=10)
    assert error.value.code == 400
    error.value.close()


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.5.5", "169.254.169.254", "0.0.0.0"),
        *("::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "224.0.0.1", "2002:7f00:1::"),
        *("100.64.0.1", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


def test_public_addresses():
    assert is_public("8.8.8.8")
    assert is_public("2606:4700:4700::1111")
    assert is_public("64:ff9b::8.8.8.8")


def test_listed_prefixes_are_of_their_host_and_path_alone(tmp_path):
    sources = Sources("http://own/artifacts/", tmp_path, ("http://10.0.0.5:81/updates",))
    assert sources.lists("http://10.0.0.5:81/updates/a.zip")
    for url in (
        "http://10.0.0.5:81/updatesx/a.zip",
        "http://10.0.0.5/updates/a.zip",
        "https://10.0.0.5:81/updates/a.zip",
        "http://10.0.0.5.evil.example:81/updates/a.zip",
        "http://evil@10.0.0.6:81/updates/a.zip",
    ):
        assert not sources.lists(url)
