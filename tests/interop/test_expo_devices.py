"""An export of Expo's, published and served, checked by OpenSSL and by Expo's own code."""

import base64
import hashlib
import json
import re
import subprocess
import urllib.error
import urllib.request
import uuid
from email.parser import BytesParser
from pathlib import Path

import pytest

from tests.interop.conftest import need
from tests.interop.test_schemes import run

CHECK = Path(__file__).with_name("expo_certificate.js")


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A build as `npx expo export` leaves it."""
    root = tmp_path_factory.mktemp("expo") / "dist"
    assets = {"assets/0f" + "1" * 30: b"\x89PNG one", "assets/0f" + "2" * 30: b"ttf"}
    kinds = ["png", "ttf"]
    files = {}
    for platform in ("android", "ios"):
        bundle = f"_expo/static/js/{platform}/index-{'a' * 32}.hbc"
        write(root / bundle, f"hermes {platform}".encode() * 1000)
        listed = [{"path": p, "ext": e} for p, e in zip(assets, kinds, strict=True)]
        files[platform] = {"bundle": bundle, "assets": [*listed, listed[0]]}
        write(root / f"{bundle}.map", b"the source")
    dom = f"www.bundle/{'d' * 32}.html"
    write(root / dom, b"<!doctype html>")
    write(root / f"www.bundle/{'d' * 32}.map", b"the source")
    files["android"]["assets"].append({"path": dom, "ext": "html"})
    for name, content in assets.items():
        write(root / name, content)
    value = {"version": 0, "bundler": "metro", "fileMetadata": files}
    write(root / "metadata.json", json.dumps(value).encode())
    config = {"name": "Shöp", "version": "1.4.0", "runtimeVersion": {"policy": "appVersion"}}
    write(root / "expoConfig.json", json.dumps(config).encode())
    return root


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_app(daemon, folder, *schemes):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", folder / "statement.pem")
    for scheme in schemes:
        daemon.ok(
            *("live-update", "generate-signing-key", "--app-id", app),
            *("--scheme", scheme, "--public", folder / f"{scheme}.pem"),
        )
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def fetch(daemon, app, platform="android", **more):
    """Ask as expo-updates does; return the parts of the answer."""
    headers = {
        "Accept": "multipart/mixed,application/expo+json,application/json",
        "Expo-Platform": platform,
        "Expo-Protocol-Version": "1",
        "Expo-API-Version": "1",
        "Expo-Updates-Environment": "BARE",
        "Expo-JSON-Error": "true",
        "EAS-Client-ID": str(uuid.uuid4()),
        "Expo-Runtime-Version": "1.4.0",
        "expo-channel-name": "production",
        "expo-expect-signature": 'sig, keyid="main", alg="rsa-v1_5-sha256"',
        **more,
    }
    request = urllib.request.Request(f"{daemon.gateway}/apps/{app}/expo", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        if answer.status == 204:
            return None
        head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + answer.read())
    return {
        part.get_param("name", header="content-disposition"): (
            dict(part.items()),
            part.get_payload(decode=True),
        )
        for part in message.get_payload()
    }


def publish(daemon, folder, export, app, *more):
    return daemon.run(
        *("publish", "--app-id", app, "--build-dir", export, "--channel", "production"),
        *("--storage", daemon.data / "artifacts", "--receipt", folder / "receipt.json"),
        *("--public-url", f"{daemon.gateway}/artifacts", *more),
    )


def openssl_verifies(certificate, manifest, signature, folder):
    run("openssl", "x509", "-in", certificate, "-pubkey", "-noout", "-out", folder / "key.pem")
    (folder / "signature").write_bytes(signature)
    return subprocess.run(
        [
            *("openssl", "dgst", "-sha256", "-verify", folder / "key.pem"),
            *("-signature", folder / "signature", manifest),
        ],
        capture_output=True,
        timeout=60,
    ).returncode


def test_openssl_and_expos_own_code_take_the_certificate_and_the_manifest(
    daemon, export, client, tmp_path
):
    need("node")
    app = make_app(daemon, tmp_path, "expo-v1")
    assert publish(daemon, tmp_path, export, app).code == 0
    certificate = tmp_path / "expo-v1.pem"
    told = run("openssl", "x509", "-in", certificate, "-noout", "-text")
    assert re.search(r"Key Usage: critical\s+Digital Signature\n", told)
    assert re.search(r"Extended Key Usage: critical\s+Code Signing\n", told)
    run(
        *("openssl", "verify", "-check_ss_sig", "-purpose", "any"),
        *("-CAfile", certificate, certificate),
    )
    for platform in ("android", "ios"):
        parts = fetch(daemon, app, platform)
        headers, body = parts["manifest"]
        assert "certificate_chain" not in parts
        signature = re.search(r'sig="([^"]+)"', headers["expo-signature"])[1]
        manifest = tmp_path / "manifest.json"
        manifest.write_bytes(body)
        raw = base64.b64decode(signature)
        assert openssl_verifies(certificate, manifest, raw, tmp_path) == 0
        oracle = ("node", CHECK, client("@expo/code-signing-certificates-0.0.6"))
        forge = client("node-forge-1.4.3")
        assert "verified" in run(*oracle, forge, certificate, manifest, signature)
        manifest.write_bytes(body.replace(b"1.4.0", b"1.4.1"))
        assert openssl_verifies(certificate, manifest, raw, tmp_path) != 0
        check_files(json.loads(body), export, platform)


def check_files(manifest, export, platform):
    """Fetch every file that a manifest names, and check it as devices do."""
    bundle = f"_expo/static/js/{platform}/index-{'a' * 32}.hbc"
    launch, assets = manifest["launchAsset"], manifest["assets"]
    assert [a["fileExtension"] for a in assets[:2]] == [".png", ".ttf"]
    assert [a["contentType"] for a in assets[:2]] == ["image/png", "font/ttf"]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{launch['url']}.map", timeout=20)
    assert manifest["extra"]["expoClient"]["name"] == "Shöp"
    assert launch["key"] == hashlib.sha256((export / bundle).read_bytes()).hexdigest()[:32]
    names = [bundle, *sorted(f"assets/{p.name}" for p in (export / "assets").iterdir())]
    if platform == "android":
        # Code opens it by this name, which the device makes of key and extension.
        dom = assets.pop()
        assert dom["key"] + dom["fileExtension"] == f"{'d' * 32}.html"
        assert dom["url"].endswith(f"/www.bundle/{'d' * 32}.html")
    for asset, name in zip((launch, *assets), names, strict=True):
        with urllib.request.urlopen(asset["url"], timeout=20) as answer:
            content = answer.read()
        assert content == (export / name).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
        assert asset["hash"] == digest.decode()


def test_a_chain_hangs_on_the_root_that_the_app_embeds(daemon, export, client, tmp_path):
    need("node")
    app = make_app(daemon, tmp_path, "expo-root-v1", "expo-v1")
    assert publish(daemon, tmp_path, export, app, "--artifact-type", "manifest").code == 0
    root, leaf = tmp_path / "expo-root-v1.pem", tmp_path / "leaf.pem"
    registered = daemon.run(
        *("native", "register", "--app-id", app, "--platform", "android", "--plugin", "expo"),
        *("--version-name", "1.4.0", "--public-key", root),
    )
    assert registered.code == 0, registered.err
    parts = fetch(daemon, app)
    leaf.write_bytes(parts["certificate_chain"][1])
    headers, body = parts["manifest"]
    signature = re.search(r'sig="([^"]+)"', headers["expo-signature"])[1]
    manifest = tmp_path / "manifest.json"
    manifest.write_bytes(body)
    run("openssl", "verify", "-x509_strict", "-purpose", "any", "-CAfile", root, leaf)
    assert openssl_verifies(leaf, manifest, base64.b64decode(signature), tmp_path) == 0
    oracle = ("node", CHECK, client("@expo/code-signing-certificates-0.0.6"))
    told = run(*oracle, client("node-forge-1.4.3"), root, manifest, signature, leaf)
    assert "verified" in told
    check_files(json.loads(body), export, "android")
    shown = daemon.ok("key", "show", f"apps/{app}/keys/expo-v1/versions/1")
    assert shown["certificate"] == leaf.read_text()
    status = daemon.run("rotation", "status", "--app-id", app, "--key", "expo-v1")
    assert "served by version 1" in status.out


def test_a_manifest_is_made_offline_of_bundle_and_receipt(daemon, export, tmp_path):
    app = make_app(daemon, tmp_path, "expo-v1")
    assert publish(daemon, tmp_path, export, app, "--runtime-version", "7").code == 0
    bundle = tmp_path / "bundle.zip"
    daemon.ok("live-update", "bundle-artifact", "--build-dir", export, "--output-path", bundle)
    made = daemon.ok(
        *("artifact", "expo", bundle, "--receipt", tmp_path / "receipt.json"),
        *("--public-key", tmp_path / "statement.pem", "--log-key", daemon.data / "log.vkey"),
        *("--platform", "ios", "--output-path", tmp_path / "manifest.json"),
    )
    served = fetch(daemon, app, "ios", **{"Expo-Runtime-Version": "7"})
    assert served["manifest"][1] == (tmp_path / "manifest.json").read_bytes()
    assert served["manifest"][0]["expo-signature"] == made["expoSignature"]
    assert fetch(daemon, app, "ios") is None, "another runtime version"


BAD = {
    "no metadata.json": ({"metadata.json": None}, "is needed, since the app has a key"),
    "a file that is not there": ({"assets/0f" + "1" * 30: None}, "which the build has not"),
    "metadata that is no JSON": ({"metadata.json": b"{"}, "metadata.json is no JSON"),
    "no member": (
        {"metadata.json": b'{"fileMetadata": {"android": {}}}'},
        "lacks a member",
    ),
    "no runtime version": ({"expoConfig.json": b"{}"}, "--runtime-version"),
    "a fingerprint": (
        {"expoConfig.json": b'{"runtimeVersion": {"policy": "fingerprint"}}'},
        "runtimeversion:resolve --platform android",
    ),
    "a fraction": (
        {"expoConfig.json": b'{"runtimeVersion": "1", "a": 0.5}'},
        "expoConfig.json.a cannot be signed",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_damaged_export_is_refused_in_one_line(daemon, export, tmp_path, what):
    import shutil

    app = make_app(daemon, tmp_path, "expo-v1")
    copy = tmp_path / "dist"
    shutil.copytree(export, copy)
    changes, message = BAD[what]
    for name, content in changes.items():
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
    result = publish(daemon, tmp_path, copy, app)
    assert result.code != 0
    assert message in result.err
    assert len(result.err.strip().splitlines()) <= 3
    assert not (tmp_path / "receipt.json").exists()


def test_each_platform_has_its_own_runtime_version(daemon, export, tmp_path):
    app = make_app(daemon, tmp_path, "expo-v1")
    versions = ("--runtime-version", "android=7", "--runtime-version", "8")
    assert publish(daemon, tmp_path, export, app, *versions).code == 0
    for platform, version in (("android", "7"), ("ios", "8")):
        served = fetch(daemon, app, platform, **{"Expo-Runtime-Version": version})
        assert json.loads(served["manifest"][1])["runtimeVersion"] == version
    assert fetch(daemon, app, "ios", **{"Expo-Runtime-Version": "7"}) is None


def test_a_web_build_is_no_export(daemon, www, tmp_path):
    app = make_app(daemon, tmp_path)
    result = publish(daemon, tmp_path, www, app, "--runtime-version", "1.0.0")
    assert result.code != 0
    assert "npx expo export" in result.err


def test_an_artifact_needs_a_signature_for_it(daemon, export, tmp_path):
    app = make_app(daemon, tmp_path)
    assert publish(daemon, tmp_path, export, app).code == 0
    bundle = tmp_path / "bundle.zip"
    daemon.ok("live-update", "bundle-artifact", "--build-dir", export, "--output-path", bundle)
    result = daemon.run(
        *("artifact", "expo", bundle, "--receipt", tmp_path / "receipt.json"),
        *("--public-key", tmp_path / "statement.pem", "--log-key", daemon.data / "log.vkey"),
        *("--platform", "ios", "--output-path", tmp_path / "out"),
    )
    assert result.code == 4
    assert "no signature for expo-v1" in result.err
