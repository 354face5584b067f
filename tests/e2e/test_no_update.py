"""A device that gets nothing is told no more than that; people are told why."""

import json
import re
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from privyseald.gateway.resolve import NO_UPDATE, NoUpdate
from privyseald.model.schemes import Scheme

from tests.expo_world import ExpoWorld, multipart

DOCS = Path(__file__).resolve().parents[2] / "docs/devices.md"


@pytest.fixture
def app(daemon, www, tmp_path):
    """An app with a channel; publishes what differs each time."""
    app = f"a-{uuid.uuid4().hex[:8]}"
    daemon.ok("app", "create", "--app-id", app)
    daemon.ok(
        *("live-update", "generate-signing-key", "--app-id", app),
        *("--public", tmp_path / "public.pem"),
    )
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def publish(daemon, app, www, *options):
    (www / "index.html").write_text(uuid.uuid4().hex)
    daemon.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--channel", "production", *options)
    )


def answer(url, body=None):
    """Return status and reason of an answer, and the answer itself."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data=data)
    try:
        with urllib.request.urlopen(request, timeout=10) as got:
            return got.status, got.headers[NO_UPDATE], json.load(got)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers[NO_UPDATE], json.load(error)


def capawesome(daemon, app, channel="production"):
    query = f"channelName={channel}&platform=0&appVersionName=1.0.0&appVersionCode=10"
    status, why, got = answer(f"{daemon.gateway}/v1/apps/{app}/bundles/latest?{query}")
    if why is None:
        assert status == 200
    else:
        # To the plugin, whatever the reason.
        assert (status, got) == (404, {"message": "no update"})
    return why


def ionic(daemon, app, snapshot=""):
    device = {"platform": "android", "binary_version": "1.0.0", "snapshot": snapshot}
    body = {"device": device, "channel_name": "production"}
    status, why, got = answer(f"{daemon.gateway}/apps/{app}/channels/check-device", body)
    assert status == 200
    assert got["data"]["available"] is (why is None)
    return why, got["data"].get("snapshot", "")


def test_a_device_without_an_update_is_told_why(daemon, app, www):
    assert capawesome(daemon, app, "prodution") == NoUpdate.NO_CHANNEL
    assert capawesome(daemon, app) == NoUpdate.NOT_DEPLOYED
    publish(daemon, app, www, "--android-min", "2.0.0")
    assert capawesome(daemon, app) == NoUpdate.OTHER_NATIVE_VERSION
    assert ionic(daemon, app)[0] == NoUpdate.OTHER_NATIVE_VERSION
    publish(daemon, app, www, "--artifact-type", "manifest")
    assert capawesome(daemon, app) == NoUpdate.OTHER_ARTIFACT
    publish(daemon, app, www)
    assert capawesome(daemon, app) is None
    why, snapshot = ionic(daemon, app)
    assert why is None
    assert ionic(daemon, app, snapshot)[0] == NoUpdate.UP_TO_DATE
    daemon.ok(
        *("live-update", "withdraw-release", "--app-id", app, "--build-id", "3"),
        *("--reason", "broken"),
    )
    assert capawesome(daemon, app) == NoUpdate.WITHDRAWN


def test_a_binary_that_would_refuse_what_there_is_is_told_so(daemon, app, www, tmp_path):
    publish(daemon, app, www)
    other = tmp_path / "other.pem"
    key = rsa.generate_private_key(65537, 2048).public_key()
    other.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    daemon.ok(
        *("native", "register", "--app-id", app, "--platform", "android", "--plugin", "capawesome"),
        *("--version-name", "1.0.0", "--version-code", "10", "--already-shipped"),
        *("--allow-unknown", "--public-key", other),
    )
    assert capawesome(daemon, app) == NoUpdate.NO_SIGNATURE


def test_expo_is_told_the_same_way(tmp_path):
    world = ExpoWorld(tmp_path, scheme=Scheme.STATEMENT_V1)
    try:
        world.embed(world.leaf())
        assert reason(world.fetch()) == NoUpdate.NOT_DEPLOYED
        world.publish()
        assert reason(world.fetch(), status=200) is None
        assert reason(world.fetch(expo_runtime_version="9.9.9")) == NoUpdate.OTHER_RUNTIME
        _, manifest = multipart(*world.fetch()[1:])["manifest"]
        has = json.loads(manifest)["id"]
        assert reason(world.fetch(expo_current_update_id=has)) == NoUpdate.UP_TO_DATE
    finally:
        world.close()


def reason(fetched, *, status=204):
    assert fetched[0] == status
    return fetched[1].get(NO_UPDATE)


def test_every_reason_has_a_remedy_in_the_documents():
    rows = re.findall(r"^\| (the \w+ .*?|nothing is .*?) \| .+ \|$", DOCS.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(map(str, NoUpdate))
