"""Who or what can open the keystore: each provider, the sealed state, going from one to another."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from privyseald.keyholder import kek as keks

from tests.conftest import Daemon, Result, free_port
from tests.softhsm import MODULE, SoftHsm

PASSPHRASE = "correct horse battery"


@pytest.fixture
def vault(tmp_path):
    running = Daemon(tmp_path / "data")
    running.init()
    yield running
    if running.process is not None and running.process.poll() is None:
        running.stop()


def rewrap(daemon, to, *more) -> Result:
    done = daemon.command("kek", "rewrap", "--to", to, *more)
    assert done.code == 0, done.err
    return done


def secret(folder: Path, text: str) -> Path:
    path = folder / f"secret-{abs(hash(text))}"
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def start_sealed(daemon, seconds=20) -> None:
    """Start a daemon that stays sealed, and wait until it says so."""
    daemon.spawn()
    wait_for(lambda: health(daemon) == "NOT_SERVING", daemon, seconds)


def wait_for(condition, daemon, seconds=20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, daemon.log_text()
        time.sleep(0.05)


def health(daemon, part="") -> str:
    root = (daemon.data / "tls/ca.pem").read_bytes()
    with grpc.secure_channel(daemon.tokens, grpc.ssl_channel_credentials(root)) as channel:
        request = health_pb2.HealthCheckRequest(service=part)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
        except grpc.RpcError:
            return ""
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def signs(daemon, www, tmp_path, app="042a1261") -> Result:
    flags = ("--app-id", app, "--build-dir", www, "--storage", tmp_path / "store")
    version = f"1.0.{time.monotonic_ns()}"
    receipt = tmp_path / "receipt.json"
    return daemon.run("publish", *flags, "--receipt", receipt, "--version", version)


def new_app(daemon, tmp_path) -> None:
    made = tmp_path / "statement.pem"
    daemon.ok("app", "create", "--app-id", "042a1261", "--statement-key", made)


def test_a_passphrase_seals_the_daemon_until_somebody_gives_it(vault, www, tmp_path):
    vault.start()
    new_app(vault, tmp_path)
    new = secret(tmp_path, PASSPHRASE)
    rewrap(vault, "passphrase", "--new-secret-file", new)
    assert not (vault.data / "kek").exists()
    # The daemon that runs has the key, and gives it to new keyholders, too.
    workers = vault.keyholders()
    assert len(workers) == 3
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: health(vault) == "SERVING", vault)
    wait_for(lambda: signs(vault, www, tmp_path).code == 0, vault)
    vault.stop()

    start_sealed(vault)
    refused = signs(vault, www, tmp_path)
    assert refused.code == 1
    assert "the daemon is sealed" in refused.err
    assert stat.S_IMODE((vault.data / "unseal.sock").stat().st_mode) == 0o700 & ~0o077
    wrong = vault.command("unseal", "--secret-file", secret(tmp_path, "wrong horse"))
    assert wrong.code == 1
    assert "does not open" in wrong.err
    opened = vault.command("unseal", "--secret-file", new)
    assert opened.out == "open\n"
    wait_for(lambda: health(vault) == "SERVING", vault)
    assert signs(vault, www, tmp_path).code == 0
    assert health(vault, "privyseal.kek") == "SERVING"
    late = vault.command("unseal", "--secret-file", new)
    assert late.code == 1
    assert "no sealed daemon listens" in late.err
    assert PASSPHRASE not in vault.log_text()


def test_a_sealed_daemon_is_unsealed_however_long_its_directorys_path_is(tmp_path):
    """The address of a socket has room for 107 bytes."""
    running = Daemon(tmp_path / ("x" * 120) / "data")
    running.data.parent.mkdir()
    running.init()
    new = secret(tmp_path, PASSPHRASE)
    rewrap(running, "passphrase", "--new-secret-file", new)
    start_sealed(running)
    try:
        assert running.command("unseal", "--secret-file", new).out == "open\n"
        wait_for(lambda: health(running) == "SERVING", running)
        assert not (running.data / "unseal.sock").exists()
        assert "Traceback" not in running.log_text()
    finally:
        running.stop()


def test_a_sealed_daemon_that_nobody_can_unseal_says_why(vault, tmp_path):
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, PASSPHRASE))
    (vault.data / "unseal.sock").mkdir()
    start_sealed(vault)
    wait_for(lambda: "nobody can unseal it: unseal.sock: Is a directory" in vault.log_text(), vault)
    assert "Traceback" not in vault.log_text()
    (vault.data / "unseal.sock").rmdir()
    wait_for((vault.data / "unseal.sock").is_socket, vault)


def test_a_passphrase_in_a_file_opens_without_people(vault, www, tmp_path):
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, PASSPHRASE))
    (vault.data / "privyseald.toml").write_text(
        f'[kek]\npassphrase_file = "{secret(tmp_path, PASSPHRASE)}"\n'
    )
    vault.start()
    new_app(vault, tmp_path)
    assert signs(vault, www, tmp_path).code == 0
    shown = vault.command("kek", "show")
    assert shown.out == "passphrase\n"


def test_officers_unseal_together(vault, www, tmp_path):
    made = rewrap(vault, "shares", "--threshold", "2", "--shares", "3").out.splitlines()
    words = [line.partition(": ")[2] for line in made[:3]]
    assert vault.command("kek", "show").out == "shares  2 of 3\n"
    start_sealed(vault)

    # Another daemon that is started here by mistake takes the officers' way in from nobody.
    twin = vault.twin()
    twin.spawn()
    wait_for(lambda: "another sealed daemon" in twin.log_text(), vault)
    twin.process.kill()
    twin.process.wait(10)
    twin.log.close()
    # As it was printed, its number before it.
    first = vault.command("unseal", "--secret-file", secret(tmp_path, made[2]))
    assert first.out == "sealed; 1 of 2 shares given\n"
    again = vault.command("unseal", "--secret-file", secret(tmp_path, words[2]))
    assert again.out == "sealed; 1 of 2 shares given\n"
    typo = " ".join([*words[0].split()[:-1], "academic"])
    assert (
        "that is no share" in vault.command("unseal", "--secret-file", secret(tmp_path, typo)).err
    )
    _, other = keks.split(b"k" * 32, 2, 3)
    foreign = vault.command("unseal", "--secret-file", secret(tmp_path, other[0]))
    assert "of another set" in foreign.err
    second = vault.command("unseal", "--secret-file", secret(tmp_path, words[0]))
    assert second.out == "open\n"
    wait_for(lambda: health(vault) == "SERVING", vault)
    new_app(vault, tmp_path)
    assert signs(vault, www, tmp_path).code == 0
    # Sealed anew, the old shares are worth nothing.
    give = [flag for n in (0, 1) for flag in ("--secret-file", secret(tmp_path, words[n]))]
    rewrap(vault, "shares", *give)
    refused = vault.command("kek", "rewrap", "--to", "file", *give)
    assert refused.code == 1
    assert "nothing was changed" in refused.err


def test_a_sealed_daemon_takes_no_nonsense_and_stops_when_told(vault, tmp_path):
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, PASSPHRASE))
    start_sealed(vault)
    for sent in (
        b"x" * 100_000,
        b"[" * 4000 + b"\n",
        b"[1, 2]\n",
        b'{"passphrase": 7}\n',
        b"\xff\xfe\n",
        b"",
    ):
        with socket.socket(socket.AF_UNIX) as to:
            to.connect(str(vault.data / "unseal.sock"))
            try:
                to.sendall(sent)
                to.shutdown(socket.SHUT_WR)
                to.recv(4096)
            except OSError:
                pass  # it hung up
    assert health(vault) == "NOT_SERVING"
    begun = time.monotonic()
    assert vault.stop() == 0
    assert time.monotonic() - begun < 5


def test_a_systemd_credential_opens(vault, www, tmp_path):
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "kek").write_bytes((vault.data / "kek").read_bytes())
    (folder / "kek").chmod(0o400)
    vault.env["CREDENTIALS_DIRECTORY"] = str(folder)
    rewrap(vault, "credential")
    assert not (vault.data / "kek").exists()
    vault.start()
    new_app(vault, tmp_path)
    assert signs(vault, www, tmp_path).code == 0
    vault.stop()
    # Without it the daemon is sealed, says why, and opens by itself when it is there.
    (folder / "kek").rename(folder / "away")
    start_sealed(vault)
    wait_for(lambda: "there is no systemd credential" in vault.log_text(), vault)
    (folder / "away").rename(folder / "kek")
    wait_for(lambda: health(vault) == "SERVING", vault)


def test_a_key_in_a_token_opens(vault, www, tmp_path):
    softhsm = SoftHsm(tmp_path / "softhsm")
    vault.env |= softhsm.env
    (vault.data / "privyseald.toml").write_text(softhsm.settings())
    rewrap(vault, "token")
    listed = softhsm.tool("--list-objects", "--type", "secrkey")
    assert "privyseal-kek" in listed
    assert "sensitive" in listed
    assert "extractable" not in listed.replace("never extractable", "")
    vault.start()
    new_app(vault, tmp_path)
    assert signs(vault, www, tmp_path).code == 0
    vault.stop()
    softhsm.remove()
    start_sealed(vault)
    softhsm.put_back()
    wait_for(lambda: health(vault) == "SERVING", vault)
    # Back to a file, with the token's help.
    rewrap(vault, "file")
    assert (vault.data / "kek").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kek_in_token", [True, False])
def test_a_pin_is_asked_for_and_in_no_file(vault, www, tmp_path, kek_in_token):
    softhsm = SoftHsm(tmp_path / "softhsm")
    vault.env |= softhsm.env
    settings = softhsm.settings().splitlines()[:-1]
    (vault.data / "privyseald.toml").write_text("\n".join([*settings, "pin_prompt = true\n"]))
    pin = secret(tmp_path, softhsm.pin)
    if kek_in_token:
        rewrap(vault, "token", "--new-secret-file", pin)
    start_sealed(vault)
    before = softhsm.spied.read_text().count("C_Login") if softhsm.spied.exists() else 0
    wrong = vault.command("unseal", "--secret-file", secret(tmp_path, "4321"))
    assert wrong.code == 1
    assert "refused the PIN" in wrong.err
    time.sleep(1)
    tries = softhsm.spied.read_text().count("C_Login") - before
    assert tries == 1, "a wrong PIN is tried once"
    assert vault.command("unseal", "--secret-file", pin).out == "open\n"
    wait_for(lambda: health(vault) == "SERVING", vault)
    made = tmp_path / "statement.pem"
    vault.ok("app", "create", "--app-id", "042a1261", "--statement-key", made, "--in-token")
    assert signs(vault, www, tmp_path).code == 0
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = process.read_bytes().split(b"\0")
        except OSError:
            continue
        assert softhsm.pin.encode() not in arguments


@pytest.fixture
def kms(monkeypatch):
    """Somebody else's imitation of AWS KMS, on loopback."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    import botocore.session

    client = botocore.session.get_session().create_client("kms")
    end = time.monotonic() + 20
    while True:
        try:
            key = client.create_key()["KeyMetadata"]["KeyId"]
            break
        except Exception:  # noqa: BLE001 - it has not started yet
            assert time.monotonic() < end
            time.sleep(0.1)
    yield env, key, process
    process.kill()
    process.wait()


def test_aws_kms_opens(kms, vault, www, tmp_path):
    env, key, server = kms
    vault.env |= env
    raw = (vault.data / "kek").read_bytes()
    unknown = vault.command("kek", "rewrap", "--to", "aws-kms", "--aws-key-id", "nobody")
    assert unknown.code == 1
    assert "AWS KMS refused: NotFoundException" in unknown.err
    assert (vault.data / "kek").exists()
    rewrap(vault, "aws-kms", "--aws-key-id", key)
    record = json.loads((vault.data / "kek.json").read_text())
    assert record["params"]["keyId"].endswith(key)
    assert not (vault.data / "kek").exists()
    assert raw not in b"".join(p.read_bytes() for p in vault.data.glob("kek*"))
    vault.start()
    new_app(vault, tmp_path)
    assert signs(vault, www, tmp_path).code == 0
    vault.stop()
    server.send_signal(signal.SIGSTOP)
    start_sealed(vault, 40)
    assert "AWS KMS cannot be used: ReadTimeoutError" in vault.log_text()
    server.send_signal(signal.SIGCONT)
    wait_for(lambda: health(vault) == "SERVING", vault)


def test_shares_that_nobody_saw_replace_nothing(vault):
    raw = (vault.data / "kek").read_bytes()
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "privyseald.main", "kek", "rewrap", "--to", "shares"],
            env={k: v for k, v in vault.env.items() if k != "PYTHONUNBUFFERED"},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "nothing was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert (vault.data / "kek").read_bytes() == raw
    assert not (vault.data / "kek.json").exists()


def test_a_token_key_that_cannot_open_seals_nothing(vault, tmp_path):
    softhsm = SoftHsm(tmp_path / "softhsm")
    vault.env |= softhsm.env
    (vault.data / "privyseald.toml").write_text(softhsm.settings())
    make = (
        "import pkcs11; from pkcs11 import Attribute, KeyType\n"
        f"t = pkcs11.lib({MODULE!r}).get_token(token_label={softhsm.label!r})\n"
        f"with t.open(user_pin={softhsm.pin!r}, rw=True) as s:\n"
        "    s.generate_key(KeyType.AES, 256, label='privyseal-kek', store=True,\n"
        "        template={Attribute.DECRYPT: False})\n"
    )
    subprocess.run([sys.executable, "-c", make], env={**os.environ, **softhsm.env}, check=True)
    refused = vault.command("kek", "rewrap", "--to", "token")
    assert refused.code == 1
    assert "may not decrypt" in refused.err
    assert (vault.data / "kek").exists()


def test_what_an_interrupted_run_left_goes(vault, tmp_path):
    for name in ("kek.new", "kek.json.new"):
        (vault.data / name).write_bytes(b"k" * 32)
    rewrap(vault, "passphrase", "--new-secret-file", secret(tmp_path, PASSPHRASE))
    assert not [path.name for path in vault.data.glob("kek*.new")]


def test_a_record_that_was_changed_does_not_open(vault, tmp_path):
    new = secret(tmp_path, PASSPHRASE)
    rewrap(vault, "passphrase", "--new-secret-file", new)
    path = vault.data / "kek.json"
    good = json.loads(path.read_text())

    def refused(change: dict) -> str:
        path.write_text(json.dumps({**good, **change}))
        done = vault.command("kek", "rewrap", "--to", "file", "--secret-file", new)
        assert done.code == 1
        assert "Traceback" not in done.err
        assert not (vault.data / "kek").exists()
        return done.err

    assert "does not open" in refused({"params": {**good["params"], "salt": "00" * 16}})
    assert "does not open" in refused({"params": {**good["params"], "iterations": 1}})
    assert "malformed" in refused({"params": {**good["params"], "memory_cost": 1 << 30}})
    assert "does not open" in refused({"sealed": "AAAA"})
    assert "not this daemon's" in refused({"check": "00" * 32})
    assert "newer version" in refused({"version": 2})
    assert "malformed" in refused({"provider": "passphrase", "params": 7})
    path.write_text(json.dumps(good))
    short = secret(tmp_path, "too short")
    flags = ("--secret-file", new, "--new-secret-file", short)
    assert "fewer than 12" in vault.command("kek", "rewrap", "--to", "passphrase", *flags).err
