"""The main job, from an empty directory to a verified release, as its users do it."""

import hashlib
import json
import urllib.request
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from privyseal.connection import Connection, load_profile
from privyseal.v1 import signing_service_pb2 as signing_pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
AS_DEVICE = "channelName=production&platform=0&appVersionName=1.0.0&appVersionCode=1"


def get(url, body=None):
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as response:
        return response.read()


@pytest.fixture
def app(daemon, tmp_path):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    daemon.ok(
        *("live-update", "generate-signing-key", "--app-id", app),
        *("--public", tmp_path / "capawesome.pem"),
    )
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def publish(daemon, app, www, tmp_path, *more, **env):
    return daemon.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store"),
        *("--channel", "production", "--receipt", tmp_path / "receipt.json", *more),
        **env,
    )


def test_publish_serve_and_verify(daemon, app, www, tmp_path):
    made = publish(daemon, app, www, tmp_path, "--version", "1.0.0")
    bundle = Path(made["artifactUrl"].removeprefix("file://"))

    latest = json.loads(get(f"{daemon.gateway}/v1/apps/{app}/bundles/latest?{AS_DEVICE}"))
    assert latest["checksum"] == hashlib.sha256(bundle.read_bytes()).hexdigest() == made["sha256"]
    assert latest["signature"]

    checked = json.loads(
        get(
            f"{daemon.gateway}/apps/{app}/channels/check-device",
            {
                "channel_name": "production",
                "device": {"platform": "ios", "binary_version": "1.0.0"},
            },
        )
    )["data"]
    assert checked["available"]
    for entry in json.loads(get(checked["url"])):
        base = checked["url"].rpartition("/")[0]
        content = get(f"{base}/{urllib.request.quote(entry['href'])}")
        assert content == (www / entry["href"]).read_bytes()
        assert len(content) == entry["size"]

    keys = ("--public-key", tmp_path / "statement.pem", "--log-key", daemon.data / "log.vkey")
    receipt = ("--receipt", tmp_path / "receipt.json")
    assert daemon.ok("verify", bundle, *receipt, *keys)["version"] == "1.0.0"
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"x")
    assert daemon.run("verify", bundle, *receipt, *keys).code == 4
    changed = (tmp_path / "receipt.json").read_text().replace('"index":', '"index":1')
    (tmp_path / "receipt.json").write_text(changed)
    assert daemon.run("verify", bundle, *receipt, *keys).code == 4


def test_signed_here_and_uploaded_elsewhere(daemon, app, www, tmp_path):
    """Appflow's way: bundle and sign, bring it to one's own storage, register, deploy."""
    bundle, receipt = tmp_path / "bundle.zip", tmp_path / "r.json"
    signed = daemon.ok(
        *("live-update", "bundle", "--app-id", app, "--build-dir", www, "--output-path", bundle),
        *("--receipt", receipt, "--version", "2.0.0", "--commit-sha", "a" * 40),
    )
    assert signed["version"] == "2.0.0"
    keys = ("--public-key", tmp_path / "statement.pem", "--log-key", daemon.data / "log.vkey")
    assert daemon.ok("verify", bundle, "--receipt", receipt, *keys)["version"] == "2.0.0"
    registered = daemon.ok(
        *("live-update", "register", "--app-id", app, "--version", "2.0.0", "--signed"),
        *("--artifact-url", bundle.as_uri(), "--commit-sha", "a" * 40),
    )
    where = ("--build-id", registered["buildId"], "--destination", "production")
    deployed = daemon.ok("deploy", "live-update", "--app-id", app, "--detached", *where)
    assert (deployed["buildNumber"], deployed["buildStatus"]) == (1, "SUCCESS")
    latest = json.loads(get(f"{daemon.gateway}/v1/apps/{app}/bundles/latest?{AS_DEVICE}"))
    assert latest["checksum"] == signed["sha256"]
    named = ("--app-id", app, "--name", "production")
    told = daemon.run("live-update", "list-deployments", *named, "--output", "json").json
    (entry,) = told["channelDeployments"]
    assert (entry["buildNumber"], entry["commitSha"]) == (1, "a" * 40)
    assert entry["deployedAt"] == deployed["deployedAt"]

    unsigned = daemon.run(
        "live-update", "bundle-artifact", "--build-dir", www, "--receipt", receipt
    )
    assert (unsigned.code, "--app-id" in unsigned.err) == (2, True)


def test_the_manifest_of_a_native_build_is_that_of_its_bundle(daemon, www, tmp_path):
    """The plugin compares the binary's with the update's, and fetches what differs."""
    bundle = tmp_path / "bundle.zip"
    daemon.ok("live-update", "bundle-artifact", "--build-dir", www, "--output-path", bundle)
    for _ in range(2):
        made = daemon.ok("live-update", "generate-manifest", "--build-dir", www)
        assert made["manifestPath"] == str(www / "pro-manifest.json")
        with zipfile.ZipFile(bundle) as archive:
            assert (www / "pro-manifest.json").read_bytes() == archive.read("pro-manifest.json")
    missing = daemon.run("live-update", "generate-manifest", "--build-dir", tmp_path / "none")
    assert (missing.code, "does not exist" in missing.err) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        ("live-update", "bundle-artifact", "--build-dir", "www", "--signing-key", "key.pem"),
        ("live-update", "generate-manifest", "--build-dir", "www", "--signing-key", "key.pem"),
        ("live-update", "generate-signing-key", "--app-id", "a", "--private", "key.pem"),
    ],
)
def test_where_appflow_takes_a_private_key_it_is_said_where_keys_are(daemon, words):
    refused = daemon.run(*words)
    assert refused.code == 2
    assert "private keys stay in the daemon" in refused.err
    assert "privyseal key import" in refused.err


def test_what_cannot_be_written_is_said_before_anything_is_done(daemon, app, www, tmp_path):
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "x"
    before = len(daemon.entries())
    for words in (
        ("publish", "--build-dir", www, "--storage", tmp_path / "store", "--receipt", nowhere),
        ("live-update", "bundle-artifact", "--build-dir", www, "--receipt", nowhere),
        ("live-update", "generate-signing-key", "--scheme", "minisign", "--public", nowhere),
        ("key", "create-standby", "--public", nowhere),
        ("app", "create", "--statement-key", nowhere),
    ):
        refused = daemon.run(*words, "--app-id", app if words[0] != "app" else "another")
        assert refused.code == 1
        assert refused.err.startswith(f"privyseal: cannot write {nowhere}: ")
    assert len(daemon.entries()) == before
    assert not (tmp_path / "store").exists()


def test_the_log_verifies_against_an_earlier_checkpoint(daemon, app, www, tmp_path):
    kept = tmp_path / "checkpoint.txt"
    key = ("--log-key", daemon.data / "log.vkey")
    daemon.ok("log", "checkpoint", *key, "--out", kept)
    publish(daemon, app, www, tmp_path)

    assert daemon.ok("log", "verify", *key, "--against", kept)["status"] == "verified"


def test_a_signers_token_signs_its_own_app_and_nothing_else(daemon, app, www, tmp_path):
    token = daemon.token(app, "signer", "releaser")
    assert publish(daemon, app, www, tmp_path, **token)["release"].startswith(f"apps/{app}/")

    other = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", other)
    refused = daemon.run(
        *("publish", "--app-id", other, "--build-dir", www, "--storage", tmp_path / "s"), **token
    )
    assert refused.code == 1
    assert "no grant" in refused.err
    assert daemon.run("app", "create", "--app-id", "x", **token).code == 1
    assert daemon.run("live-update", "generate-signing-key", "--app-id", app, **token).code == 1

    daemon.ok("access", "revoke-token", token["NAME"])
    revoked = daemon.run("live-update", "list-channels", "--app-id", app, **token)
    assert revoked.code == 1
    assert "revoked" in revoked.err


def test_a_suspended_key_signs_nothing_until_it_is_resumed(daemon, app, www, tmp_path):
    publish(daemon, app, www, tmp_path)
    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    daemon.ok("key", "suspend", version, "--reason", "test")
    store = ("--storage", tmp_path / "store")
    refused = daemon.run("publish", "--app-id", app, "--build-dir", www, *store)
    assert refused.code == 1
    assert "is suspended; a security officer" in refused.err
    daemon.ok("key", "resume", version, "--reason", "test")
    publish(daemon, app, www, tmp_path)


def test_native_versions_decide_who_gets_a_release(daemon, app, www, tmp_path):
    made = publish(daemon, app, www, tmp_path, "--android-min", "1.0")
    url = f"{daemon.gateway}/v1/apps/{app}/bundles/latest?channelName=production&platform=0"

    assert get(f"{url}&appVersionName=1.0.0&appVersionCode=5")
    for query in ("&appVersionName=0.9&appVersionCode=5", "&appVersionName=x&appVersionCode=5"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(url + query)
    daemon.ok(
        *("live-update", "set-native-versions", "--app-id", app, "--build-id", made["buildId"]),
        *("--android-eq", "5"),
    )
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(f"{url}&appVersionName=1.0.0&appVersionCode=5")
    assert get(f"{url}&appVersionName=1.0.0&appVersionCode=6")


def sign_request(app, **changes):
    fields = {
        "parent": f"apps/{app}",
        "version": "v" + uuid.uuid4().hex,
        "bundle_sha256": b"1" * 32,
        "bundle_length": 10,
        "manifest_sha256": b"2" * 32,
        "request_id": str(uuid.uuid4()),
    }
    return signing_pb.SignReleaseRequest(**{**fields, **changes})


@pytest.fixture
def admin(daemon):
    with Connection(load_profile(str(daemon.data / "admin/profile.toml"))) as connection:
        yield connection


def test_a_repeated_request_gets_the_first_answer(admin, app):
    request = sign_request(app)
    first = admin.signing.SignRelease(request)

    assert admin.signing.SignRelease(request) == first
    again = sign_request(app, version=request.version)
    assert admin.signing.SignRelease(again).receipt == first.receipt


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"bundle_sha256": b"1" * 31}, "INVALID_ARGUMENT", "32 bytes"),
        ({"bundle_sha256": b"1" * 51}, "INVALID_ARGUMENT", "32 bytes"),
        ({"manifest_sha256": b""}, "INVALID_ARGUMENT", "manifest_sha256"),
        ({"bundle_length": 0}, "INVALID_ARGUMENT", "bundle_length"),
        ({"version": "a b"}, "INVALID_ARGUMENT", "version"),
        ({"request_id": "x"}, "INVALID_ARGUMENT", "request_id"),
        ({"source_commit": "zzzzzzz"}, "INVALID_ARGUMENT", "source_commit"),
        ({"parent": "apps/nobody"}, "NOT_FOUND", "there is no app"),
        ({"version": "x" * (64 << 20)}, "RESOURCE_EXHAUSTED", "larger than max"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_requests_are_refused_by_name(admin, app, changes, code, text):
    with pytest.raises(grpc.RpcError) as refused:
        admin.signing.SignRelease(sign_request(app, **changes))
    assert refused.value.code().name == code
    assert text in refused.value.details()


def test_the_same_version_with_another_digest_is_refused(admin, app):
    request = sign_request(app)
    admin.signing.SignRelease(request)
    with pytest.raises(grpc.RpcError) as refused:
        admin.signing.SignRelease(
            sign_request(app, version=request.version, bundle_sha256=b"9" * 32)
        )
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS
    with pytest.raises(grpc.RpcError) as reused:
        admin.signing.SignRelease(sign_request(app, request_id=request.request_id))
    assert reused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_concurrent_callers_each_get_a_proof_that_verifies(admin, daemon, app):
    from privyseal.verify.note import NoteVerifier
    from privyseal.verify.receipt import verify_receipt

    log = NoteVerifier.parse((daemon.data / "log.vkey").read_text())
    calls = [admin.signing.SignRelease.future(sign_request(app)) for _ in range(200)]
    receipts = [verify_receipt(call.result().receipt, log=log) for call in calls]

    assert len({receipt.index for receipt in receipts}) == 200
    assert len({receipt.statement.counter for receipt in receipts}) == 200


def test_no_credential_and_a_wrong_ca(daemon, app, tmp_path):
    base = {
        "PRIVYSEAL_PROFILE": str(daemon.empty_profile()),
        "PRIVYSEAL_SERVER": daemon.tokens,
        "PRIVYSEAL_CA": str(daemon.data / "tls/ca.pem"),
    }
    listing = ("live-update", "list-channels", "--app-id", app)
    assert "no credential" in daemon.run(*listing, **base).err
    cut = daemon.run(*listing, **base, PRIVYSEAL_TOKEN="pst_abc")
    assert "malformed" in cut.err

    from privyseald.adapters import pki

    pki.create_ca(tmp_path)
    wrong = daemon.run(*listing, **{**base, "PRIVYSEAL_CA": str(tmp_path / "ca.pem")})
    assert wrong.code == 3
    assert "did not issue" in wrong.err
    nobody = daemon.run("--server", "127.0.0.1:1", *listing)
    assert nobody.code == 3
    assert "cannot reach" in nobody.err
    for result in (cut, wrong, nobody):
        assert result.err.count("\n") == 1


def test_credentials_that_cannot_be_are_named(daemon, app, tmp_path):
    (tmp_path / "junk.pem").write_text("junk")
    other = daemon.person("other-" + uuid.uuid4().hex[:6])
    others_key = Path(other["PRIVYSEAL_PROFILE"]).with_name("client.key")
    tokens = {"PRIVYSEAL_SERVER": daemon.tokens, "PRIVYSEAL_PROFILE": str(daemon.empty_profile())}
    ca = {"PRIVYSEAL_CA": str(daemon.data / "tls/ca.pem")}
    junk = str(tmp_path / "junk.pem")
    for env, told in (
        ({"PRIVYSEAL_CA": junk}, "holds no certificate"),
        ({"PRIVYSEAL_CERTIFICATE": junk}, "is not a certificate in PEM"),
        ({"PRIVYSEAL_KEY": junk}, "is not a private key in PEM"),
        ({"PRIVYSEAL_KEY": str(others_key)}, "is not the private key of the client certificate"),
        ({**tokens, **ca, "PRIVYSEAL_TOKEN": "pst_ä"}, "characters that no token has"),
    ):
        refused = daemon.run("live-update", "list-channels", "--app-id", app, **env)
        assert refused.code == 1
        assert told in refused.err
        assert refused.err.count("\n") == 1


def test_one_version_asked_for_at_once_is_signed_once(admin, app):
    request = sign_request(app)
    calls = [
        admin.signing.SignRelease.future(sign_request(app, version=request.version))
        for _ in range(20)
    ]
    receipts = set()
    for call in calls:
        try:
            receipts.add(call.result().receipt)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017 - one of two outcomes
    assert receipts == {admin.signing.SignRelease(request).receipt}


def test_an_expired_client_certificate_is_named(daemon, app, tmp_path):
    from privyseald.adapters import pki

    tls = daemon.data / "tls"
    certificate, key = pki.issue(tls, common_name="late", hosts=[], days=1, now=LONG_AGO)
    (tmp_path / "late.pem").write_bytes(certificate)
    (tmp_path / "late.key").write_bytes(key)
    files = {
        "PRIVYSEAL_CERTIFICATE": str(tmp_path / "late.pem"),
        "PRIVYSEAL_KEY": str(tmp_path / "late.key"),
    }
    result = daemon.run("live-update", "list-channels", "--app-id", app, **files)

    assert result.code == 1
    assert "expired on" in result.err
    assert result.err.count("\n") == 1
    # The daemon does not rely on the client's own look at the date.
    parts = ((tls / "ca.pem").read_bytes(), key, certificate)
    with grpc.secure_channel(
        f"127.0.0.1:{daemon.ports[1]}", grpc.ssl_channel_credentials(*parts)
    ) as channel:
        stub = signing_grpc.SigningServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.SignRelease(sign_request(app), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_an_expired_server_certificate_is_named(daemon, app, tmp_path):
    from privyseald.adapters import pki

    tls = daemon.data / "tls"
    certificate, key = pki.issue(
        tls, common_name="privyseald", hosts=["127.0.0.1"], days=1, now=LONG_AGO
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)])
        )
        server.start()
        try:
            listing = ("live-update", "list-channels", "--app-id", app)
            result = daemon.run("--server", f"127.0.0.1:{port}", *listing)
        finally:
            server.stop(None).wait()
    assert result.code == 3
    assert "expired" in result.err
    assert result.err.count("\n") == 1
