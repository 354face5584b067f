"""cordova-plugin-ionic, unmodified, does a whole update against the gateway."""

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.interop.conftest import need


@pytest.fixture
def device(daemon, client, tmp_path):
    need("node")
    plugin = client("cordova-plugin-ionic-5.5.3") / "dist/common.js"
    folder = tmp_path / "device"
    (folder / "www").mkdir(parents=True)
    (folder / "www/index.html").write_text("the build in the store")

    def run(app, *calls):
        script = Path(__file__).with_name("ionic_device.js")
        done = subprocess.run(
            ["node", script, plugin, folder, daemon.gateway, app, *calls],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    run.folder = folder
    return run


def release(daemon, tmp_path, www, *more):
    app = "ionic-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app)
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    flags = ("--storage", tmp_path / "store", "--channel", "production", *more)
    made = daemon.ok("publish", "--app-id", app, "--build-dir", www, *flags)
    return app, Path(made["artifactUrl"].removeprefix("file://"))


WHOLE = ("checkForUpdate", "downloadUpdate", "extractUpdate", "reloadApp")


def test_a_whole_update_then_nothing_more(daemon, device, www, tmp_path):
    app, _ = release(daemon, tmp_path, www)

    first = device(app, *WHOLE)

    assert first["answers"][0]["available"] is True
    assert first["answers"][1:] == [True, True, True]
    applied = Path(first["page"])
    same_files(www, applied)
    again = device(app, "checkForUpdate")
    assert again["page"] == str(applied)
    assert again["answers"][0]["available"] is False


def test_a_tampered_bundle_is_not_served(daemon, device, www, tmp_path):
    # Of its own content: a bundle that was verified once is served from that copy.
    (www / "index.html").write_text(uuid.uuid4().hex)
    app, bundle = release(daemon, tmp_path, www)
    content = bundle.read_bytes().replace(b"index.html", b"index.htmL")
    bundle.write_bytes(content)

    refused = device(app, "checkForUpdate", "downloadUpdate")

    assert "rejected" in refused["answers"][1]
    assert refused["page"] == str(device.folder / "www")


def test_an_artifact_that_is_a_pipe_does_not_stop_the_daemon(daemon, device, www, tmp_path):
    (www / "index.html").write_text(uuid.uuid4().hex)
    app, bundle = release(daemon, tmp_path, www)
    bundle.unlink()
    os.mkfifo(bundle)

    refused = device(app, "checkForUpdate", "downloadUpdate")

    assert "rejected" in refused["answers"][1]
    assert device("nobody", "checkForUpdate")["answers"][0]["available"] is False


def test_an_unknown_app_has_no_update(device):
    assert device("nobody", "checkForUpdate")["answers"][0]["available"] is False


def test_a_manifest_artifact_is_served_file_by_file(daemon, device, www, tmp_path):
    app, manifest = release(daemon, tmp_path, www, "--artifact-type", "manifest")

    updated = device(app, *WHOLE)

    assert updated["answers"][1:] == [True, True, True]
    same_files(www, Path(updated["page"]))
    assert manifest.name == "pro-manifest.json"


@pytest.mark.parametrize("what", ["index.html", "pro-manifest.json"])
def test_a_tampered_file_beside_a_manifest_is_not_served(daemon, device, www, tmp_path, what):
    (www / "index.html").write_text(uuid.uuid4().hex)
    app, manifest = release(daemon, tmp_path, www, "--artifact-type", "manifest")
    content = bytearray((manifest.parent / what).read_bytes())
    content[10] ^= 1
    (manifest.parent / what).write_bytes(content)

    refused = device(app, "checkForUpdate", "downloadUpdate")

    assert "rejected" in refused["answers"][1]
    assert refused["page"] == str(device.folder / "www")


def same_files(www, applied):
    files = [
        p for p in www.rglob("*") if p.is_file() and not p.name.endswith((".js.map", ".css.map"))
    ]
    for path in files:
        assert (applied / path.relative_to(www)).read_bytes() == path.read_bytes()
    return len(files)


@pytest.mark.parametrize(
    ("build", "least"),
    [
        ("@ionic/core-9.0.5/dist", 1000),
        ("monaco-editor-0.57.0/min", 100),
        ("swagger-ui-dist-5.35.0/.", 10),
    ],
)
def test_a_real_build(daemon, device, npm_package, tmp_path, build, least):
    www = tmp_path / "www"
    spec, _, folder = build.rpartition("/")
    shutil.copytree(npm_package(spec) / folder, www)
    if not (www / "index.html").exists():
        (www / "index.html").write_text("<!doctype html>")
    app, _ = release(daemon, tmp_path, www)

    updated = device(app, *WHOLE)

    assert updated["answers"][1:] == [True, True, True]
    assert same_files(www, Path(updated["page"])) >= least


def test_a_build_with_awkward_names_and_a_large_file(daemon, device, www, tmp_path):
    (www / "größe 100%.txt").write_text("percent")
    (www / "日本語").mkdir()
    (www / "日本語/ページ.html").write_text("page")
    (www / "assets/large.bin").write_bytes(bytes(range(256)) * (50 * 4096))
    app, _ = release(daemon, tmp_path, www)

    updated = device(app, *WHOLE)

    assert updated["answers"][1:] == [True, True, True]
    assert same_files(www, Path(updated["page"])) == 7
