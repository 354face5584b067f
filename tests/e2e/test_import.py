"""An existing private key moves to the daemon; nothing but the keyholder ever sees it."""

import base64
import shlex
import uuid

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from privyseal.verify.errors import VerificationError
from privyseal.verify.importing import import_key_text, open_import_key
from privyseal.verify.note import Checkpoint, NoteVerifier, format_note

from tests.conftest import Daemon

PASSPHRASE = "correct horse"
FORMS = {
    "PKCS #8": (serialization.PrivateFormat.PKCS8, None),
    "PKCS #1": (serialization.PrivateFormat.TraditionalOpenSSL, None),
    "PKCS #8, encrypted": (serialization.PrivateFormat.PKCS8, PASSPHRASE),
    "PKCS #1, encrypted": (serialization.PrivateFormat.TraditionalOpenSSL, PASSPHRASE),
}


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    running = Daemon(tmp_path_factory.mktemp("import") / "data")
    running.init()
    running.start()
    running.olivia = running.person("olivia", "security-officer", "admin")
    running.anna = running.person("anna", "approver")
    yield running
    running.stop()


@pytest.fixture
def app(team, tmp_path):
    app = "app-" + uuid.uuid4().hex[:8]
    team.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    return app


def pem(key, form, passphrase):
    cipher = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, form, cipher)


def importing(team, app, file, *more):
    return team.run(
        *("key", "import", "--app-id", app, "--private-key", file),
        *("--log-key", team.data / "log.vkey", *more),
        **team.olivia,
    )


def consent(team, told):
    words = shlex.split(told.partition("ask with: privyseal ")[2])
    asked = team.ok(*words, "--reason", "we move", **team.olivia)["approval"]
    team.ok("approval", "approve", asked, **team.anna)


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_imported_with_consent_and_signs_for_the_installs_in_the_field(
    team, app, form, www, tmp_path
):
    key = rsa.generate_private_key(65537, 2048)
    file, passphrase = tmp_path / "private.pem", tmp_path / "passphrase"
    file.write_bytes(pem(key, *FORMS[form]))
    passphrase.write_text(PASSPHRASE + "\n")
    more = ("--passphrase-file", passphrase)

    refused = importing(team, app, file, *more)
    assert refused.code == 1
    assert "asks for the consent of others" in refused.err
    consent(team, refused.err)
    # They consented to a key for Capawesome's devices, and to nothing else that it could sign.
    other = importing(team, app, file, *more, "--scheme", "codepush-v1")
    assert "asks for the consent of others" in other.err
    done = importing(team, app, file, *more)

    assert done.code == 0, done.err
    assert "remove the private key" in done.out
    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    assert team.ok("key", "show", version)["protection"] == {
        "backend": "software",
        "origin": "imported",
    }
    made = team.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store"),
        *("--receipt", tmp_path / "receipt.json"),
    )
    receipt = (tmp_path / "receipt.json").read_text()
    bundle = next((tmp_path / "store").rglob(f"{made['sha256']}.zip")).read_bytes()
    assert any(verifies(key, base64.b64decode(s), bundle) for s in signatures(receipt))
    logged = next(e for e in team.entries() if e.get("keyVersion") == version)
    assert (logged["act"], logged["protection"]["origin"]) == ("key.import", "imported")
    leaks(team, key)


def signatures(receipt):
    import json

    return [s["signature"] for s in json.loads(receipt)["signatures"]]


def verifies(key, signature, bundle):
    from cryptography.exceptions import InvalidSignature

    try:
        key.public_key().verify(signature, bundle, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


def leaks(team, key):
    """Look for the key's secret numbers in every file of the daemon, its log included."""
    numbers = key.private_numbers()
    secrets = [n.to_bytes((n.bit_length() + 7) // 8) for n in (numbers.p, numbers.q, numbers.d)]
    needles = [form for s in secrets for form in (s[:24], base64.b64encode(s)[:30], s.hex()[:40])]
    files = [path for path in team.data.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        for needle in needles:
            raw = needle if isinstance(needle, bytes) else needle.encode()
            assert raw not in content, path.name


def test_consent_is_for_one_key_and_no_other(team, app, tmp_path):
    first, second = tmp_path / "first.pem", tmp_path / "second.pem"
    for file in (first, second):
        file.write_bytes(pem(rsa.generate_private_key(65537, 2048), *FORMS["PKCS #8"]))
    consent(team, importing(team, app, first).err)

    assert "asks for the consent of others" in importing(team, app, second).err
    assert importing(team, app, first).code == 0
    again = importing(team, app, first)
    assert again.code == 1


def test_what_cannot_be_imported_is_refused_in_words(team, app, tmp_path):
    rsa1024 = rsa.generate_private_key(65537, 1024)
    good = pem(rsa.generate_private_key(65537, 2048), *FORMS["PKCS #8, encrypted"])
    (tmp_path / "wrong").write_text("wrong")
    cases = {
        "no PEM private key": b"hello",
        "2048, 3072 or 4096": pem(rsa1024, *FORMS["PKCS #8"]),
        "is the passphrase right?": good,
        "cannot be read": b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "not RSA, P-256 or Ed25519": pem(
            ec.generate_private_key(ec.SECP384R1()), *FORMS["PKCS #8"]
        ),
        "not ed25519": pem(ed25519.Ed25519PrivateKey.generate(), *FORMS["PKCS #8"]),
    }
    for told, content in cases.items():
        file = tmp_path / "private.pem"
        file.write_bytes(content)
        result = importing(team, app, file, "--passphrase-file", tmp_path / "wrong")
        assert result.code == 1, told
        assert told in result.err
        assert "Traceback" not in result.err
        assert len(result.err.splitlines()) == 1


def test_the_keyholder_is_vouched_for_by_the_log_that_the_user_knows(team, app, tmp_path):
    file, vkey = tmp_path / "private.pem", tmp_path / "other.vkey"
    file.write_bytes(pem(rsa.generate_private_key(65537, 2048), *FORMS["PKCS #8"]))
    name = (team.data / "log.vkey").read_text().split("+")[0]
    other = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    vkey.write_text(NoteVerifier(name, other).vkey())

    result = importing(team, app, file, "--log-key", vkey)

    assert result.code == 4
    assert "signed by another" in result.err


def test_no_other_note_of_the_log_passes_for_an_import_key():
    private = ed25519.Ed25519PrivateKey.generate()
    verifier = NoteVerifier("log", private.public_key().public_bytes_raw())

    def note(text):
        return format_note(text, "log", verifier.public_key, private.sign(text.encode()))

    assert open_import_key(note(import_key_text("log", b"k" * 32)), verifier) == b"k" * 32
    for text in (
        Checkpoint("log", 7, b"k" * 32).text(),
        import_key_text("other log", b"k" * 32),
        import_key_text("log", b"k" * 31),
        import_key_text("log", b"k" * 32) + "more\n",
    ):
        with pytest.raises(VerificationError):
            open_import_key(note(text), verifier)
