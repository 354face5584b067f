"""Command lines that go wrong: variables that are not set, pipes that close, names of nothing."""

import os
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from privyseal.bundling.bundle import write_bundle
from privyseal.cli.releases import look_at
from privyseal.errors import BuildError
from privyseal.storage import check
from privyseald.config import Settings, unknown_variables

from tests.conftest import Daemon, Result

PEM = b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n"


def make_app(daemon, app):
    daemon.ok("app", "create", "--app-id", app)
    return app


@pytest.mark.parametrize(
    "words",
    [
        ("publish", "--app-id", "a", "--build-dir", ""),
        ("publish", "--app-id", "", "--build-dir", "."),
        ("publish", "--app-id", "a", "--build-dir", ".", "--android-min", ""),
        ("publish", "--app-id", "a", "--build-dir", ".", "--channel", ""),
        ("live-update", "bundle-artifact", "--build-dir", ".", "--output-path", ""),
        ("grant", "create", "--principal", "certificate:a", "--role", "signer", "--ref", ""),
        ("app", "create", "--app-id", ""),
        ("--server", "", "doctor"),
        ("key", "show", ""),
    ],
)
def test_an_empty_value_is_no_absent_one(daemon, words, tmp_path):
    (tmp_path / "index.html").write_text("x")
    done = daemon.run(*words, cwd=tmp_path)
    assert done.code == 2, done
    assert "is empty; is a variable unset?" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]


def test_the_daemons_own_commands_take_no_empty_directory(tmp_path):
    command = [sys.executable, "-m", "privyseald.main", "init", "--data", ""]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, "is empty" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (".env", b"SECRET=1"),
        (".env.production", b"SECRET=1"),
        ("assets/.git/config", b"x"),
        (".npmrc", b"x"),
        ("server.key", PEM),
        ("certs/all.pem", b"x" * 100 + b"\n" + PEM),
        ("release.keystore", b"x"),
    ],
)
def test_what_is_private_stays_out_of_bundles(www, tmp_path, name, content):
    (www / name).parent.mkdir(parents=True, exist_ok=True)
    (www / name).write_bytes(content)
    with pytest.raises(BuildError, match="looks private"):
        write_bundle(www, tmp_path / "bundle.zip")
    assert write_bundle(www, tmp_path / "bundle.zip", private=True).files == 5


def test_what_only_looks_a_little_private_is_bundled(www, tmp_path):
    (www / "public.pem").write_text("-----BEGIN PUBLIC KEY-----\n")
    (www / "environment.js").write_text("x")
    (www / "song.key").write_text("C minor")
    (www / ".well-known").mkdir()
    (www / ".well-known/assetlinks.json").write_text("[]")
    assert write_bundle(www, tmp_path / "bundle.zip").files == 8


def test_what_is_no_file_is_not_waited_for(www, tmp_path):
    os.mkfifo(www / "a.pem")
    with pytest.raises(BuildError, match="not a regular file"):
        write_bundle(www, tmp_path / "bundle.zip")


@pytest.mark.parametrize("url", ["file:///srv/artifacts", "HTTPS://cdn.example/a", "http://a"])
def test_an_address_that_devices_or_the_gateway_can_use_is_taken(tmp_path, url):
    check(str(tmp_path), url)


def test_a_bundle_that_nobody_signed_says_so(daemon, www, tmp_path):
    words = ("live-update", "bundle-artifact", "--build-dir", www, "--output-path")
    assert "it is not signed" in daemon.run(*words, tmp_path / "b.zip").out
    done = daemon.run(*words, tmp_path)
    assert (done.code, "is a directory" in done.err) == (1, True)


def run(daemon, *words, stdout):
    command = [sys.executable, "-m", "privyseal", *words]
    done = subprocess.run(
        command,
        env=daemon.client_env(),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=30,
    )
    return Result(done.returncode, "", done.stderr)


def test_who_reads_may_have_enough_and_a_disk_be_full(daemon):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = run(daemon, "doctor", stdout=gone)
    assert (done.code, done.err) == (141, "")
    closed = [sys.executable, "-m", "privyseal", "doctor"]
    told = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *closed],
        env=daemon.client_env(),
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert (told.returncode, told.stderr) == (0, b"")
    with open("/dev/full", "w") as full:
        for form in ((), ("--json",)):
            done = run(daemon, "doctor", *form, stdout=full)
            assert done.code == 1
            assert done.err.strip() == (
                "privyseal: cannot write to standard output: No space left on device"
            )
        words = ("access", "create-token", "--app-id", "-", "--name", "x", "--role", "auditor")
        done = run(daemon, *words, stdout=full)
    assert done.code == 1
    assert "access revoke-token tokens/" in done.err


def test_grants_that_no_token_could_meet_are_refused(tmp_path):
    issuers = "".join(
        f'[[issuers]]\nname = "{name}"\nprovider = "{name}"\nurl = "https://{name}.example"\n'
        f'organizations = ["1"]\njwks_file = "jwks.json"\n'
        for name in ("github", "gitlab")
    )
    daemon = Daemon(tmp_path / "data", 'audience = "https://x"\n' + issuers)
    daemon.init()
    (daemon.data / "jwks.json").write_text('{"keys": []}')
    daemon.start()
    try:
        app = make_app(daemon, "shop")
        give = ("grant", "create", "--app-id", app, "--role", "releaser")
        by_name = daemon.run(*give, "--github-repository-id", "octo/app")
        assert (by_name.code, "by its number" in by_name.err) == (1, True)
        short = daemon.run(*give, "--github-repository-id", "456", "--ref", "main")
        assert (short.code, "refs/heads/main" in short.err) == (1, True)
        daemon.ok(*give, "--gitlab-project-id", "456", "--ref", "main")
        full = (*give, "--github-repository-id", "456", "--ref", "refs/heads/main")
        made = daemon.ok(*full)["grant"]
        again = daemon.run(*full)
        assert (again.code, made in again.err) == (1, True)
        nobody = daemon.run(*give, "--principal", "token:nosuch")
        assert (nobody.code, "there is no token" in nobody.err) == (1, True)
    finally:
        assert daemon.stop() == 0


def test_a_manifest_that_no_build_takes_is_not_registered(daemon, www, tmp_path):
    app = make_app(daemon, "manifests")
    pem = tmp_path / "key.pem"
    daemon.ok("live-update", "generate-signing-key", "--app-id", app, "--public", pem)
    words = ("native", "register", "--app-id", app, "--platform", "android")
    version = ("--version-name", "1.0.0", "--version-code", "10")
    daemon.ok(*words, *version, "--plugin", "capawesome", "--public-key", pem)
    publish = ("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store")
    done = daemon.run(*publish, "--artifact-type", "manifest", "--version", "1")
    assert (done.code, "take no manifest" in done.err) == (1, True)
    daemon.ok(*publish, "--version", "1")
    older = daemon.run(*publish, "--version", "1", "--public-url", "https://other.example")
    assert older.code == 1
    assert "under a new --version" in older.err
    assert "go on with" not in older.err


@pytest.mark.parametrize(
    "url", ["notaurl", "cdn.example/x", "https://", "ftp://cdn.example", "file://"]
)
def test_an_address_no_device_can_use_is_refused_before_anything_is_signed(
    daemon, www, tmp_path, url
):
    app = f"urls-{abs(hash(url))}"
    make_app(daemon, app)
    publish = ("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store")
    done = daemon.run(*publish, "--public-url", url)
    assert (done.code, "--public-url must be" in done.err) == (1, True)
    assert not (tmp_path / "store").exists()
    assert not [e for e in daemon.entries() if e["act"] == "release.sign" and e["app"] == app]


def test_doctor_sees_what_publish_would_stumble_over(daemon, tmp_path):
    def details(**env):
        done = daemon.run("doctor", "--json", **env)
        return done.code, {c["check"]: c for c in done.json["checks"]}

    code, seen = details()
    assert code == 0
    assert "counts until" in seen["certificate"]["detail"]
    for storage in ("s3://", "az://x", "ftp://x/y"):
        code, seen = details(PRIVYSEAL_STORAGE=storage)
        assert (code, seen["storage"]["ok"]) == (1, False)
    code, seen = details(PRIVYSEAL_PUBLIC_URL="notaurl")
    assert (code, seen["storage"]["ok"]) == (1, False)
    code, seen = details(PRIVYSEAL_STORAGE="http://127.0.0.1:1/x")
    assert (code, seen["storage"]["ok"]) == (1, False)
    # A certificate that is about to end.
    from privyseald.adapters import pki

    admin = tmp_path / "admin"
    shutil.copytree(daemon.data / "admin", admin)
    begun = datetime.now(UTC) - timedelta(days=85)
    kind = {"common_name": "admin", "hosts": []}
    certificate, key = pki.issue(daemon.data / "tls", **kind, days=90, now=begun)
    (admin / "client.pem").write_bytes(certificate)
    (admin / "client.key").write_bytes(key)
    code, seen = details(PRIVYSEAL_PROFILE=str(admin / "profile.toml"))
    assert (code, seen["certificate"]["ok"]) == (1, False)
    assert seen["connection"]["ok"]
    # One that lives for an hour, as a mesh gives them.
    certificate, key = pki.issue(daemon.data / "tls", **kind, days=1 / 24)
    (admin / "client.pem").write_bytes(certificate)
    (admin / "client.key").write_bytes(key)
    code, seen = details(PRIVYSEAL_PROFILE=str(admin / "profile.toml"))
    assert (code, seen["certificate"]["ok"]) == (0, True)


def test_doctor_tells_a_job_what_its_token_is_for(daemon):
    anonymous = {
        "PRIVYSEAL_PROFILE": str(daemon.empty_profile()),
        "PRIVYSEAL_SERVER": daemon.tokens,
        "PRIVYSEAL_CA": str(daemon.data / "tls/ca.pem"),
        "PRIVYSEAL_ID_TOKEN": "eyJhbGciOiJub25lIn0.e30.",
    }
    done = daemon.run("doctor", **anonymous)
    assert done.code == 1
    assert "--app-id" in done.out
    assert "PRIVYSEAL_TOKEN" not in done.out
    listed = daemon.run("app", "list", **anonymous)
    assert (listed.code, "counts for one app" in listed.err) == (1, True)


@pytest.mark.parametrize(
    "host", ["ünï.example", "https://foo.example/", "a b", "sign.example.com:8443", "", "x" * 300]
)
def test_what_is_no_name_of_a_server_gets_no_certificate(tmp_path, host):
    daemon = Daemon(tmp_path / "data")
    done = daemon.command("init", "--host", host)
    assert done.code in {1, 2}
    assert "Traceback" not in done.err
    assert not (tmp_path / "data/kek").exists()


@pytest.mark.parametrize("name", ["", "x" * 65, "bén", "a/b", "-x"])
def test_what_is_no_name_of_a_person_gets_none_either(daemon, tmp_path, name):
    done = daemon.command("issue-certificate", "--out", tmp_path / "out", "--", name)
    assert done.code == 1
    assert "is no name for a certificate" in done.err
    assert not (tmp_path / "out").exists()


def test_the_servers_certificate_is_renewed_while_it_runs(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.start()
    try:

        def served():
            from ssl import get_server_certificate

            host, _, port = daemon.tokens.partition(":")
            pem = get_server_certificate((host, int(port)))
            return x509.load_pem_x509_certificate(pem.encode())

        before = served()
        done = daemon.command("renew-server-certificate")
        assert done.code == 0, done.err
        after = served()
        assert after.serial_number != before.serial_number
        names = x509.SubjectAlternativeName
        assert after.extensions.get_extension_for_class(names) == (
            before.extensions.get_extension_for_class(names)
        )
        assert after.not_valid_after_utc - after.not_valid_before_utc > timedelta(days=800)
        done = daemon.command(
            "renew-server-certificate", "--host", "127.0.0.1", "--host", "a.example"
        )
        assert "127.0.0.1, a.example" in done.out
        assert daemon.run("doctor").code == 0
        # Whoever renews it, the daemon's user reads it.
        if os.geteuid() == 0:
            for name in ("server.pem", "server.key"):
                os.chown(daemon.data / "tls" / name, 65534, 65534)
            daemon.command("renew-server-certificate")
            for name in ("server.pem", "server.key"):
                assert (daemon.data / "tls" / name).stat().st_uid == 65534
    finally:
        assert daemon.stop() == 0


def test_settings_that_cannot_be_are_named(tmp_path):
    daemon = Daemon(tmp_path / "data")
    daemon.init()
    daemon.env["PRIVYSEALD_LISTEN_TOKENS"] = "foo"
    done = daemon.command("serve")
    assert done.code == 1
    assert "listen_tokens: must be HOST:PORT, got foo" in done.err
    names = [
        "PRIVYSEALD_LISTEN_TOKNES",
        "PRIVYSEALD_PORT_8443_TCP",
        "PRIVYSEALD_KEK__PASSPHRASE_FILE",
    ]
    names += [f"PRIVYSEALD_{name.upper()}" for name in Settings.model_fields]
    assert unknown_variables(dict.fromkeys(names, "x")) == ["PRIVYSEALD_LISTEN_TOKNES"]


def test_accept_loss_says_that_it_was_sent_to_the_wrong_place(tmp_path):
    nowhere = Daemon(tmp_path / "nosuch")
    done = nowhere.command("accept-loss", "--entries", "5")
    assert done.code == 1
    assert "a data directory?" in done.err
    assert "--log-key" not in done.err


def test_whoever_has_no_terminal_is_told_of_the_file(tmp_path):
    command = [sys.executable, "-m", "privyseald.main", "kek", "rewrap", "--to", "passphrase"]
    data = Daemon(tmp_path / "data")
    data.init()
    done = subprocess.run(
        [*command, "--data", str(data.data)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "on a terminal, and there is none" in done.stderr
    assert "Warning" not in done.stderr


def test_an_apps_name_is_as_good_as_its_id(daemon):
    assert daemon.ok("app", "create", "--app-id", "apps/named")["appId"] == "named"
    assert daemon.ok("live-update", "list-releases", "--app-id", "apps/named")["releases"] == []


class Answers(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response({"/gone.zip": 404, "/no-head.zip": 405}.get(self.path, 200))
        self.send_header("Content-Length", "7")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_what_is_registered_is_looked_at():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        assert look_at(f"{at}/a.zip", 7) == ""
        assert "7 bytes and 8 were signed" in look_at(f"{at}/a.zip", 8)
        assert look_at(f"{at}/manifest.json", 0) == ""
        assert "answers 404" in look_at(f"{at}/gone.zip", 7)
        assert look_at(f"{at}/no-head.zip", 7) == ""
        server.shutdown()
    assert "cannot be reached" in look_at(f"{at}/a.zip", 7)
    assert look_at("file:///nowhere", 7) == ""


def test_a_channel_that_serves_devices_is_not_deleted_by_the_way(daemon, www, tmp_path):
    app = make_app(daemon, "channels")
    daemon.ok("live-update", "create-channel", "--app-id", app, "--name", "beta")
    flags = ("--app-id", app, "--build-dir", www, "--storage", tmp_path / "store")
    daemon.ok("publish", *flags, "--channel", "beta")
    delete = ("live-update", "delete-channel", "--app-id", app, "--name", "beta")
    done = daemon.run(*delete)
    assert (done.code, "--force" in done.err) == (1, True)
    daemon.ok(*delete, "--force")


def test_a_servers_certificate_that_ends_soon_is_told(tmp_path):
    from privyseald.adapters import pki

    daemon = Daemon(tmp_path / "data")
    daemon.init()
    tls = daemon.data / "tls"
    begun = datetime.now(UTC) - timedelta(days=85)
    kind = {"common_name": "privyseald", "hosts": ["127.0.0.1"]}
    pem, key = pki.issue(tls, **kind, days=90, now=begun)
    (tls / "server.pem").write_bytes(pem)
    (tls / "server.key").write_bytes(key)
    daemon.start()
    try:
        done = daemon.run("doctor")
        assert (done.code, "renew-server-certificate" in done.out) == (1, True)
    finally:
        assert daemon.stop() == 0
