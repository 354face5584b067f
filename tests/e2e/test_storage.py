"""Uploads that go well and uploads that do not: an object store, a full disk, Ctrl-C."""

import errno
import hashlib
import resource
import signal
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click.testing
import pytest
from privyseal import storage
from privyseal.cli.main import cli
from privyseal.connection import Connection, load_profile
from privyseal.errors import ClientError
from privyseal.v1 import release_service_pb2 as release_pb

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-central-1",
    "AWS_ALLOW_HTTP": "true",
}


class ObjectStore(ThreadingHTTPServer):
    """Takes PUT requests as S3 does, with path-style addresses; can be made to hang."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects = {}
        self.reached = threading.Event()
        self.release = threading.Event()
        self.release.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.server.reached.set()
        self.server.release.wait(60)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path] = body
        self.send_response(200)
        self.send_header("ETag", '"' + hashlib.md5(body).hexdigest() + '"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def bucket():
    server = ObjectStore()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.env = {**KEYS, "AWS_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def app(daemon):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app)
    return app


def upload(app, storage, www):
    return (
        *("live-update", "upload-artifact", "--app-id", app, "--build-dir", str(www)),
        *("--public-url", "https://cdn.example", "--storage", str(storage)),
    )


def releases(daemon, app):
    with Connection(load_profile(str(daemon.data / "admin/profile.toml"))) as to:
        request = release_pb.ListReleasesRequest(parent=f"apps/{app}")
        return list(to.call(to.releases.ListReleases, request).releases)


def test_an_object_store_gets_the_bundle(daemon, app, bucket, www):
    made = daemon.ok(*upload(app, "s3://bucket/live", www), **bucket.env)

    (path,) = bucket.objects
    assert path.startswith("/bucket/live/")
    assert made["artifactUrl"] == "https://cdn.example" + path.removeprefix("/bucket/live")
    assert made["sha256"] == hashlib.sha256(bucket.objects[path]).hexdigest()


def test_an_address_that_devices_cannot_fetch_is_refused_before_anything(daemon, app, bucket, www):
    words = ("--app-id", app, "--build-dir", www, "--storage", "s3://bucket/live")
    result = daemon.run("live-update", "upload-artifact", *words, **bucket.env)

    assert result.code == 1
    assert "--public-url" in result.err
    assert bucket.objects == {}


def test_an_unreachable_object_store_is_said_in_a_line(daemon, app, www):
    env = {**KEYS, "AWS_ENDPOINT": "http://127.0.0.1:1"}
    result = daemon.run(*upload(app, "s3://bucket/live", www), **env)

    assert result.code == 3
    assert "cannot upload" in result.err.splitlines()[-1]
    assert releases(daemon, app) == []


UPLOAD = """
import sys
from pathlib import Path
from privyseal.errors import ClientError
from privyseal.storage import upload
try:
    upload(sys.argv[1], "bundle.zip", Path(sys.argv[2]))
except ClientError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_while_uploading_leaves_nothing(tmp_path):
    """The limit on file sizes stands for the disk's end: the same path, and no mount."""
    source, store = tmp_path / "bundle.zip", tmp_path / "store"
    source.write_bytes(b"\x00\x01\x02\x03" * (1 << 20))
    result = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(store), str(source)],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )

    assert result.returncode == 1
    assert result.stderr.startswith("cannot upload")
    assert result.stderr.count("\n") == 1
    assert [p for p in store.rglob("*") if p.is_file()] == []


def test_of_many_objects_all_are_there_or_none(tmp_path):
    store = tmp_path / "store"
    files = {}
    for name in ("a.js", "b.js", "c.js"):
        files[name] = tmp_path / name
        files[name].write_text(name)

    def some(count):
        yield from [(f"p/{name}", path) for name, path in files.items()][:count]
        if count < len(files):
            raise OSError(errno.ENOSPC, "no space left on device")

    storage.upload_all(str(store), [("p/a.js", files["a.js"])])
    with pytest.raises(ClientError, match="no space left"):
        storage.upload_all(str(store), some(2))
    # What an earlier release has there stays.
    assert [p.name for p in store.rglob("*") if p.is_file()] == ["a.js"]
    storage.upload_all(str(store), some(3))
    assert sorted(p.name for p in store.rglob("*") if p.is_file()) == sorted(files)


def test_single_files_are_those_that_were_signed(daemon, app, www, tmp_path, monkeypatch):
    """The build may be changed by whatever runs beside it, between signature and upload."""
    from privyseal.cli import publish as command

    real = command.make_bundle

    def bundle_then_change(*args, **kwargs):
        made = real(*args, **kwargs)
        (www / "index.html").write_text("changed after it was bundled")
        return made

    monkeypatch.setattr(command, "make_bundle", bundle_then_change)
    before = (www / "index.html").read_bytes()
    arguments = ["publish", "--app-id", app, "--build-dir", str(www), "--artifact-type", "manifest"]
    profile = str(daemon.data / "admin/profile.toml")
    run = click.testing.CliRunner().invoke(
        cli, ["--profile", profile, *arguments, "--storage", str(tmp_path / "store"), "--json"]
    )
    assert run.exit_code == 0, run.output
    (index,) = (tmp_path / "store").rglob("index.html")
    assert index.read_bytes() == before


def test_ctrl_c_during_an_upload_ends_it_at_once(daemon, app, bucket, www):
    bucket.release.clear()
    process = subprocess.Popen(
        [sys.executable, "-m", "privyseal", *upload(app, "s3://bucket/live", www)],
        env=daemon.client_env(**bucket.env),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert bucket.reached.wait(30)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()

    assert process.returncode == 130
    assert time.monotonic() - began < 5
    assert "interrupted" in err
    assert "Traceback" not in err
    assert releases(daemon, app) == []


def test_how_far_an_upload_is_can_be_told(tmp_path):
    source = tmp_path / "big.zip"
    source.write_bytes(b"z" * (12 << 20))
    told = []
    target = tmp_path / "store"
    storage.upload(str(target), "a/b.zip", source, "", lambda *so_far: told.append(so_far))
    assert (target / "a/b.zip").read_bytes() == source.read_bytes()
    assert told == sorted(told)
    assert len({done for done, _ in told}) > 2
    assert told[-1] == (12 << 20, 12 << 20)
