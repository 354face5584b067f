"""What every device meets at the gateway, whatever its plugin: shapes, channels, TLS."""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
import uuid

import pytest
from privyseald.adapters import pki
from privyseald.gateway import server as gateway_server
from privyseald.gateway.app import MAX_BODY

from tests.conftest import Daemon, zygote


def answer(url, method="GET", context=None, data=None, **headers):
    request = urllib.request.Request(url, data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as got:
            return got.status, json.load(got)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/nothing", "GET", 404),
        ("/apps/a/channels/check-device", "GET", 405),
        ("/v1/apps/a/bundles/latest", "DELETE", 405),
        ("//nothing/at/all", "GET", 404),
    ],
)
def test_a_refusal_has_the_shape_that_ionics_client_reads(daemon, path, method, status):
    got, told = answer(daemon.gateway + path, method)
    assert got == status
    assert told["error"]["message"]


@pytest.mark.parametrize(("length", "status"), [(MAX_BODY, 200), (MAX_BODY + 1, 400)])
def test_a_body_is_of_bounded_length(daemon, length, status):
    asked = {"channel_name": "none", "device": {"binary_version": "1", "platform": "android"}}
    body = json.dumps(asked).encode()
    got, _ = answer(
        f"{daemon.gateway}/apps/nobody/channels/check-device",
        "POST",
        data=body + b" " * (length - len(body)),
        **{"content-type": "application/json"},
    )
    assert got == status


def test_a_slash_too_many_leads_to_the_same(daemon):
    assert answer(f"{daemon.gateway}//healthz") == answer(f"{daemon.gateway}/healthz")


def test_channels_are_listed_in_pages_and_by_name(daemon):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app)
    for name in ("beta-1", "beta-2", "production"):
        daemon.ok("live-update", "create-channel", "--app-id", app, "--name", name)
    base = f"{daemon.gateway}/v1/apps/{app}/channels"

    def names(query=""):
        status, told = answer(base + query)
        assert status == 200
        return [channel["name"] for channel in told]

    assert names() == ["beta-1", "beta-2", "production"]
    assert names("?limit=1&offset=1") == ["beta-2"]
    assert names("?query=beta") == ["beta-1", "beta-2"]
    assert names("?query=beta&offset=1&limit=50") == ["beta-2"]
    assert names("?offset=5") == []
    for bad in ("?limit=-1", "?offset=x", "?limit=" + "9" * 5000):
        assert answer(base + bad)[0] == 400


@pytest.fixture
def https(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.env |= {
        "PRIVYSEALD_CHANNEL_DISCOVERY": "false",
        "PRIVYSEALD_GATEWAY_CERTIFICATE": str(daemon.data / "gateway.pem"),
        "PRIVYSEALD_GATEWAY_KEY": str(daemon.data / "gateway.key"),
    }
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        assert daemon.stop() == 0


def renew(daemon):
    certificate, key = pki.issue(
        daemon.data / "tls", common_name="gateway", hosts=["127.0.0.1"], days=1
    )
    (daemon.data / "gateway.key").write_bytes(key)
    (daemon.data / "gateway.pem").write_bytes(certificate)
    return certificate


def presents(daemon, certificate):
    return ssl.get_server_certificate(("127.0.0.1", daemon.ports[2])).split() == (
        certificate.decode().split()
    )


def test_a_renewed_certificate_is_taken_up_and_one_that_does_not_fit_is_not(https):
    first = renew(https)
    https.start()
    assert presents(https, first)
    (https.data / "gateway.key").write_bytes(b"no key")
    end = time.monotonic() + 10 * gateway_server.LOOK_SECONDS
    while "not taken up" not in https.log_text():
        assert time.monotonic() < end
        time.sleep(0.2)
    assert presents(https, first)
    second = renew(https)
    while not presents(https, second):
        assert time.monotonic() < end + 10 * gateway_server.LOOK_SECONDS
        time.sleep(0.2)
    context = ssl.create_default_context(cafile=https.data / "tls/ca.pem")
    base = f"https://127.0.0.1:{https.ports[2]}"
    assert answer(f"{base}/healthz", context=context)[0] == 200
    assert answer(f"{base}/v1/apps/a/channels", context=context)[0] == 401


def test_old_ciphers_are_refused(https):
    renew(https)
    https.start()

    def connects(*how):
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{https.ports[2]}", *how],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.returncode == 0

    assert connects("-tls1_3")
    assert connects("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert not connects("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384")
    assert not connects("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")


@pytest.mark.parametrize("what", ["missing", "not its key"])
def test_a_certificate_that_cannot_be_used_is_named(https, what):
    if what == "not its key":
        renew(https)
        key = (https.data / "gateway.key").read_bytes()
        renew(https)
        (https.data / "gateway.key").write_bytes(key)
    code, _, told = zygote.run("daemon", ["serve"], env=https.env)
    assert code == 1
    assert "gateway_certificate and gateway_key" in told
    assert "Traceback" not in told
