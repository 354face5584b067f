"""Every scheme's artifact, checked by code that nobody here wrote."""

import base64
import json
import os
import re
import subprocess
import uuid
import zipfile
from pathlib import Path

import pytest

from tests.interop.conftest import need

SCHEMES = (
    *("capgo-v2", "codepush-v1", "minisign", "statement-ml-dsa-v1", "capawesome-v1"),
    "sparkle-ed25519",
)


def run(*command, **settings):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, **settings
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def signed(daemon, tmp_path_factory):
    """A release of an app with a key of every scheme."""
    folder = tmp_path_factory.mktemp("schemes")
    www = folder / "www"
    www.mkdir()
    (www / "index.html").write_text("<!doctype html>")
    (www / "näme with space.js").write_text("console.log(1)\n" * 99)
    (www / "z.js").write_text("z")
    # What appcenter-cli left of the release before; its own hash counts none of them.
    (www / "sub").mkdir()
    for place in (www, www / "sub"):
        (place / ".codepushrelease").write_text("an old token")
        (place / ".DS_Store").write_text("x")
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", folder / "statement.pem")
    for scheme in SCHEMES:
        daemon.ok(
            *("live-update", "generate-signing-key", "--app-id", app),
            *("--scheme", scheme, "--public", folder / f"{scheme}.pub"),
        )
    bundle = folder / "bundle.zip"
    daemon.ok("live-update", "bundle-artifact", "--build-dir", www, "--output-path", bundle)
    receipt = folder / "receipt.json"
    daemon.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--version", "1.0.0"),
        *("--storage", folder / "store", "--receipt", receipt),
    )
    return folder, app


def artifact(daemon, folder, verb, target, *more):
    return daemon.ok(
        *("artifact", verb, folder / "bundle.zip", "--receipt", folder / "receipt.json"),
        *("--public-key", folder / "statement.pem", "--log-key", daemon.data / "log.vkey"),
        *("--output-path", folder / target, *more),
    )


def test_capgos_own_client_decrypts_the_artifact_and_takes_its_checksum(
    daemon, signed, client, tmp_path
):
    need("node")
    folder, _ = signed
    made = artifact(daemon, folder, "capgo", "capgo.zip")
    (tmp_path / "capgo.zip").write_bytes((folder / "capgo.zip").read_bytes())
    (tmp_path / "package.json").write_text(
        json.dumps(
            {
                "name": "app",
                "version": "1.0.0",
                "dependencies": {"@capgo/capacitor-updater": "8.51.23"},
            }
        )
    )
    public = (folder / "capgo-v2.pub").read_text()
    config = {
        "appId": "com.example.app",
        "appName": "app",
        "webDir": "www",
        "plugins": {"CapacitorUpdater": {"publicKey": public}},
    }
    (tmp_path / "capacitor.config.json").write_text(json.dumps(config))
    command = [
        *("node", client("@capgo/cli-8.68.1") / "dist/index.js", "bundle", "decrypt"),
        *("capgo.zip", made["sessionKey"], "--key-data", public),
    ]

    told = run(*command, "--checksum", made["checksum"], cwd=tmp_path, env=offline(tmp_path))

    plain = [p for p in tmp_path.glob("*.zip*") if p.name != "capgo.zip"]
    assert len(plain) == 1, told
    assert plain[0].read_bytes() == (folder / "bundle.zip").read_bytes()
    wrong = subprocess.run(
        [*map(str, command), "--checksum", "0" * 512],
        cwd=tmp_path,
        env=offline(tmp_path),
        capture_output=True,
        timeout=120,
    )
    assert wrong.returncode != 0, "the oracle refuses another checksum"


def offline(home):

    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CI": "1",
        "CAPGO_DISABLE_TELEMETRY": "1",
    }


def test_appcenters_own_code_finds_the_hash_that_the_token_claims(daemon, signed, client, tmp_path):
    need("node")
    folder, _ = signed
    made = artifact(daemon, folder, "codepush", "codepush.zip")
    zipfile.ZipFile(folder / "codepush.zip").extractall(tmp_path)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    names = {"index.html", "näme with space.js", "z.js", ".codepushrelease"}
    assert files == {f"CodePush/{name}" for name in names}
    script = Path(__file__).with_name("codepush_hash.js")
    appcenter, lodash = client("appcenter-cli-3.0.4"), client("lodash-4.17.21")

    found = run("node", script, appcenter, lodash, tmp_path).strip()

    assert found == made["packageHash"]
    token = (tmp_path / "CodePush/.codepushrelease").read_text()
    header, claims, signature = token.split(".")
    assert json.loads(unpadded(claims))["contentHash"] == found
    assert json.loads(unpadded(header)) == {"alg": "RS256", "typ": "JWT"}
    (tmp_path / "input").write_text(f"{header}.{claims}")
    (tmp_path / "signature").write_bytes(unpadded(signature))
    public = folder / "codepush-v1.pub"
    run(
        *("openssl", "dgst", "-sha256", "-verify", public),
        *("-signature", tmp_path / "signature", tmp_path / "input"),
    )


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_debians_minisign_verifies_the_bundle_and_its_comment(daemon, signed):
    need("minisign")
    folder, app = signed
    artifact(daemon, folder, "minisign", "bundle.zip.minisig")

    told = run("minisign", "-V", "-m", folder / "bundle.zip", "-p", folder / "minisign.pub")

    assert f"file:{app}-1.0.0.zip" in told
    changed = folder / "changed.zip"
    changed.write_bytes((folder / "bundle.zip").read_bytes() + b"\0")
    wrong = subprocess.run(
        [
            *("minisign", "-V", "-m", changed, "-p", folder / "minisign.pub"),
            *("-x", folder / "bundle.zip.minisig"),
        ],
        capture_output=True,
        timeout=60,
    )
    assert wrong.returncode != 0
    # Tauri's updater takes the same, each as base64.
    words = ("minisign", "bundle.zip.sig", "--tauri")
    artifact(daemon, folder, *words)
    plain = base64.b64decode((folder / "bundle.zip.sig").read_bytes(), validate=True)
    assert plain == (folder / "bundle.zip.minisig").read_bytes()


def test_openssl_verifies_the_archive_as_sparkle_does(daemon, signed, tmp_path):
    folder, _ = signed
    made = artifact(daemon, folder, "sparkle", "enclosure.txt")
    bundle = folder / "bundle.zip"
    text = (folder / "enclosure.txt").read_text().strip()
    assert text == made["attributes"]
    found = re.fullmatch(r'sparkle:edSignature="([^"]+)" length="(\d+)"', text)
    assert int(found[2]) == bundle.stat().st_size
    # SUPublicEDKey is the raw key; OpenSSL wants it in its SubjectPublicKeyInfo (RFC 8410).
    raw = base64.b64decode((folder / "sparkle-ed25519.pub").read_text())
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + raw)
    (tmp_path / "signature").write_bytes(base64.b64decode(found[1]))
    verify = [
        *("openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER"),
        *("-inkey", tmp_path / "key.der", "-sigfile", tmp_path / "signature", "-in"),
    ]
    assert "Verified Successfully" in run(*verify, bundle)
    changed = tmp_path / "changed.zip"
    changed.write_bytes(bundle.read_bytes()[:-1] + b"x")
    wrong = subprocess.run([*map(str, verify), changed], capture_output=True, timeout=60)
    assert wrong.returncode != 0


def test_openssl_verifies_what_capgo_devices_open_with_the_public_key(daemon, signed, tmp_path):
    folder, _ = signed
    made = artifact(daemon, folder, "capgo", "capgo2.zip")
    digest = run("sha256sum", folder / "bundle.zip").split()[0]
    (tmp_path / "signature").write_bytes(bytes.fromhex(made["checksum"]))
    run(
        *("openssl", "rsa", "-RSAPublicKey_in", "-in", folder / "capgo-v2.pub"),
        *("-pubout", "-out", tmp_path / "spki.pem"),
    )
    run(
        *("openssl", "pkeyutl", "-verifyrecover", "-pubin", "-inkey", tmp_path / "spki.pem"),
        *("-in", tmp_path / "signature", "-out", tmp_path / "digest"),
    )
    assert (tmp_path / "digest").read_bytes().hex() == digest


def test_a_scheme_that_the_app_has_no_key_for_is_named(daemon, www, tmp_path):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    bundle, receipt = tmp_path / "bundle.zip", tmp_path / "receipt.json"
    daemon.ok("live-update", "bundle-artifact", "--build-dir", www, "--output-path", bundle)
    daemon.ok(
        *("publish", "--app-id", app, "--build-dir", www),
        *("--storage", tmp_path / "store", "--receipt", receipt),
    )
    for verb in ("capgo", "codepush", "minisign", "sparkle"):
        result = daemon.run(
            *("artifact", verb, bundle, "--receipt", receipt, "--output-path", tmp_path / "out"),
            *("--public-key", tmp_path / "statement.pem", "--log-key", daemon.data / "log.vkey"),
        )
        assert result.code == 4
        assert "receipt has no signature for" in result.err
        assert not (tmp_path / "out").exists()


def test_securesystemslib_verifies_the_statement(signed):
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import SSlibKey

    folder, app = signed
    receipt = (folder / "receipt.json").read_text()
    envelope = Envelope.from_dict(json.loads(receipt)["statement"])
    key_id = f"apps/{app}/keys/statement-v1/versions/1"
    public = load_pem_public_key((folder / "statement.pem").read_bytes())
    key = SSlibKey.from_crypto(public, keyid=key_id)

    assert set(envelope.verify([key], 1)) == {key_id}
    assert json.loads(envelope.payload)["predicate"]["app"] == app
    payload = base64.b64encode(b"{}").decode()
    changed = Envelope.from_dict({**json.loads(receipt)["statement"], "payload": payload})
    with pytest.raises(VerificationError):
        changed.verify([key], 1)


def test_another_implementation_of_fips_204_verifies_the_second_signature(signed):
    from dilithium_py.ml_dsa import ML_DSA_65

    folder, _ = signed
    value = json.loads((folder / "receipt.json").read_text())["statement"]
    second = next(s for s in value["signatures"] if "ml-dsa" in s["keyid"])
    der = base64.b64decode(
        "".join((folder / "statement-ml-dsa-v1.pub").read_text().split("\n")[1:-2])
    )
    raw, signature = der[-1952:], base64.b64decode(second["sig"])
    kind, payload = value["payloadType"].encode(), base64.b64decode(value["payload"])
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)

    assert len(signature) == 3309
    assert ML_DSA_65.verify(raw, message, signature)
    assert not ML_DSA_65.verify(raw, message + b"x", signature)
