"""Signed notes, checkpoints and vkeys: each rule of their form, broken alone by who has the key."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import (
    MAX_NOTE,
    MAX_SIGNATURES,
    Checkpoint,
    NoteVerifier,
    format_note,
    open_checkpoint,
    open_note,
)

KEY = ed25519.Ed25519PrivateKey.generate()
OTHER = ed25519.Ed25519PrivateKey.generate()
LOG = NoteVerifier("example.com/log", KEY.public_key().public_bytes_raw())
ROOT = bytes(range(32))


def note(text, *, name=LOG.name, key=KEY):
    return format_note(text, name, key.public_key().public_bytes_raw(), key.sign(text.encode()))


def checkpoint(*, origin=LOG.name, **how):
    return note(Checkpoint(origin, 2, ROOT).text(), **how)


def by_others(count):
    """Return signature lines of as many strangers."""
    line = base64.b64encode(b"else" + bytes(64)).decode()
    return "".join(f"\u2014 other{n} {line}\n" for n in range(count))


def test_a_checkpoint_is_of_the_logs_own_key_name_and_origin():
    assert open_checkpoint(checkpoint(), LOG).size == 2
    with pytest.raises(VerificationError, match="another log"):
        open_checkpoint(checkpoint(origin="example.com/other"), LOG)
    with pytest.raises(VerificationError, match="not signed by"):
        open_checkpoint(checkpoint(name="example.com/other"), LOG)
    with pytest.raises(VerificationError, match="than the one whose key was given"):
        open_checkpoint(checkpoint(key=OTHER), LOG)
    text = Checkpoint(LOG.name, 2, ROOT).text()
    forged = format_note(text, LOG.name, LOG.public_key, OTHER.sign(text.encode()))
    with pytest.raises(VerificationError, match="does not verify"):
        open_note(forged, LOG)


def test_a_signature_under_another_name_is_not_the_logs():
    """Though its line has the id of the log's key: the id is of name and key together."""
    renamed = checkpoint().replace(f"\u2014 {LOG.name}", "\u2014 example.com/other")
    with pytest.raises(VerificationError, match="not signed by"):
        open_checkpoint(renamed, LOG)


def test_a_note_is_of_bounded_length():
    room = MAX_NOTE - len(note("\n"))
    assert len(open_note(note("x" * room + "\n"), LOG)) == room + 1
    with pytest.raises(VerificationError, match="too long"):
        open_note(note("x" * (room + 1) + "\n"), LOG)


@pytest.mark.parametrize("control", ["\t", "\r", "\0", "\x1b"])
def test_a_note_has_no_control_characters(control):
    with pytest.raises(VerificationError, match="control characters"):
        open_note(note(f"a{control}b\n"), LOG)


def test_a_note_has_a_bounded_number_of_signatures():
    assert open_checkpoint(checkpoint() + by_others(MAX_SIGNATURES - 1), LOG).size == 2
    with pytest.raises(VerificationError, match="no signature block"):
        open_checkpoint(checkpoint() + by_others(MAX_SIGNATURES), LOG)


@pytest.mark.parametrize(
    "line",
    [
        "- other AAAAAAA=",
        "\u2014 other AAAA",
        "\u2014  AAAAAAA=",
        "\u2014 other AAAAAAA",
        "\u2014 other",
    ],
    ids=["another dash", "too short", "no name", "no base64", "no signature"],
)
def test_a_signature_line_that_is_malformed_refuses_the_note(line):
    with pytest.raises(VerificationError, match="signature line of the note is malformed"):
        open_checkpoint(checkpoint() + line + "\n", LOG)


@pytest.mark.parametrize(
    ("size", "root"),
    [
        ("02", base64.b64encode(ROOT).decode()),
        ("-2", base64.b64encode(ROOT).decode()),
        ("\u0662", base64.b64encode(ROOT).decode()),
        ("2" * 21, base64.b64encode(ROOT).decode()),
        ("2", base64.b64encode(ROOT[:31]).decode()),
        # The last character has bits that no byte takes.
        ("2", base64.b64encode(ROOT).decode()[:-2] + "9="),
        ("2", base64.b64encode(ROOT).decode() + "\nmore"),
    ],
    ids=["zero before", "negative", "other digits", "long", "short root", "loose bits", "more"],
)
def test_a_checkpoint_has_one_form(size, root):
    with pytest.raises(VerificationError, match="checkpoint"):
        open_checkpoint(note(f"{LOG.name}\n{size}\n{root}\n"), LOG)


def test_a_checkpoint_names_a_log():
    nameless = NoteVerifier("", KEY.public_key().public_bytes_raw())
    with pytest.raises(VerificationError):
        open_checkpoint(note(f"\n2\n{base64.b64encode(ROOT).decode()}\n"), nameless)


def test_a_vkey_is_of_one_form():
    assert NoteVerifier.parse(LOG.vkey() + "\n") == LOG
    name, given, key = LOG.vkey().split("+", 2)
    with pytest.raises(VerificationError, match="do not match"):
        NoteVerifier.parse(f"{name}+{int(given, 16) ^ 1:08x}+{key}")
    public = KEY.public_key().public_bytes_raw()
    for kind in (b"\x02" + public, b"\x01" + public[:31], b"\x01" + public + b"\0"):
        with pytest.raises(VerificationError, match="is not Ed25519"):
            NoteVerifier.parse(f"{name}+{given}+{base64.b64encode(kind).decode()}")
    for text in (f"{name}+{given}", f"{name}+{given}+***", ""):
        with pytest.raises(VerificationError, match="not of the form"):
            NoteVerifier.parse(text)
