"""cordova-plugin-ionic, unmodified, does a whole update against the gateway."""

import json
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


def release(daemon, tmp_path, www):
    app = "ionic-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app)
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    flags = ("--storage", tmp_path / "store", "--channel", "production")
    made = daemon.ok("publish", "--app-id", app, "--build-dir", www, *flags)
    return app, Path(made["artifactUrl"].removeprefix("file://"))


WHOLE = ("checkForUpdate", "downloadUpdate", "extractUpdate", "reloadApp")


def test_a_whole_update_then_nothing_more(daemon, device, www, tmp_path):
    app, _ = release(daemon, tmp_path, www)

    first = device(app, *WHOLE)

    assert first["answers"][0]["available"] is True
    assert first["answers"][1:] == [True, True, True]
    applied = Path(first["page"])
    for path in www.rglob("*"):
        if path.is_file():
            assert (applied / path.relative_to(www)).read_bytes() == path.read_bytes()
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


def test_an_unknown_app_has_no_update(device):
    assert device("nobody", "checkForUpdate")["answers"][0]["available"] is False


def test_a_real_build_with_thousands_of_files(daemon, device, npm_package, tmp_path):
    www = tmp_path / "www"
    shutil.copytree(npm_package("@ionic/core-9.0.5") / "dist", www)
    (www / "index.html").write_text("<script src=ionic/ionic.js></script>")
    app, _ = release(daemon, tmp_path, www)

    updated = device(app, *WHOLE)

    assert updated["answers"][1:] == [True, True, True]
    applied = Path(updated["page"])
    files = [p for p in www.rglob("*") if p.is_file() and p.suffix != ".map"]
    assert len(files) > 1000
    assert all((applied / p.relative_to(www)).read_bytes() == p.read_bytes() for p in files)
