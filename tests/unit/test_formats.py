import dataclasses
import json

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from privyseal.verify.canonical import canonical, parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import (
    Checkpoint,
    NoteVerifier,
    format_note,
    open_checkpoint,
    open_note,
    parse_checkpoint,
)
from privyseal.verify.statement import (
    PAYLOAD_TYPE,
    NativeRange,
    Statement,
    envelope,
    open_envelope,
    pae,
)

NAMES = st.text(st.characters(max_codepoint=127), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_canonical_json_is_that_of_an_independent_implementation(value):
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("bad", [1.5, 2**53, -(2**53), {"é": 1}, b"x", [float("nan")]])
def test_what_has_no_canonical_form_is_refused(bad):
    with pytest.raises(ValueError):
        canonical(bad)


@pytest.mark.parametrize(
    "text",
    [
        *(b'{"a":1,"a":2}', b"[1]", b'{"a":1.0}', b'{"a":NaN}', b"\xff"),
        b'{"a":' * 100_000,
    ],
    ids=["twice", "no object", "float", "no number", "no text", "deep"],
)
def test_parsing_refuses_duplicates_floats_and_what_is_no_object(text):
    with pytest.raises(VerificationError):
        parse_object(text, "value")


def test_pae_of_the_dsse_specification():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def statement(**changes):
    base = Statement(
        app="042a1261",
        version="1.0.0",
        counter=1,
        bundle_sha256=b"\x01" * 32,
        bundle_length=10,
        manifest_sha256=b"\x02" * 32,
        native_ranges=(NativeRange("android", "1.0"),),
        source_commit="abcdef1",
        signed_at=1_700_000_000,
        log_origin="example/log",
    )
    return dataclasses.replace(base, **changes)


def test_statement_golden_vector():
    assert statement().build().decode() == (
        '{"_type":"https://in-toto.io/Statement/v1","predicate":{"app":"042a1261",'
        '"bundle":{"format":"zip","length":10},"counter":1,"log":"example/log",'
        '"manifest":{"sha256":"' + "02" * 32 + '"},"nativeRanges":[{"eq":"","max":"",'
        '"min":"1.0","platform":"android"}],"signedAt":"2023-11-14T22:13:20Z",'
        '"sourceCommit":"abcdef1","version":"1.0.0"},'
        '"predicateType":"https://privyseal.dev/release/v1","subject":[{"digest":{"sha256":"'
        + "01" * 32
        + '"},"name":"042a1261"}]}'
    )


def test_statement_survives_the_round_trip_and_nothing_else_parses():
    payload = statement().build()

    assert Statement.parse(payload) == statement()
    for changed in (
        payload.replace(b'"counter":1', b'"counter":01'),
        payload.replace(b'"app":"042a1261"', b'"app":"other"'),
        payload.replace(b'"eq":""', b'"eq":"","x":""'),
        payload + b" ",
    ):
        with pytest.raises(VerificationError):
            Statement.parse(changed)


def test_checkpoint_round_trip_and_tampering():
    key = Ed25519PrivateKey.generate()
    verifier = NoteVerifier("example/log", key.public_key().public_bytes_raw())
    checkpoint = Checkpoint("example/log", 42, b"\x07" * 32)
    text = checkpoint.text()
    note = format_note(text, verifier.name, verifier.public_key, key.sign(text.encode()))

    assert open_checkpoint(note, NoteVerifier.parse(verifier.vkey())) == checkpoint
    for changed in (note.replace("42", "43"), note.replace("\n42\n", "\n042\n"), note[:-2], ""):
        with pytest.raises(VerificationError):
            open_checkpoint(changed, verifier)
    stranger = NoteVerifier(
        "example/log", Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    )
    with pytest.raises(VerificationError):
        open_checkpoint(note, stranger)


@given(st.text(max_size=80))
def test_no_text_parses_to_a_checkpoint_that_formats_otherwise(text):
    try:
        parsed = parse_checkpoint(text)
    except VerificationError:
        return
    assert parsed.text() == text


def test_an_envelope_is_read_in_either_alphabet():
    """DSSE v1.0.2, protocol: base64 is standard or URL-safe."""
    tried = 0
    for n in range(200):
        key = Ed25519PrivateKey.generate()
        payload = statement(version=f"1.0.{n}").build()
        signed = envelope(payload, ("k", key.sign(pae(PAYLOAD_TYPE, payload))))
        safe = json.loads(json.dumps(signed).replace("+", "-").replace("/", "_"))
        # The slash of the media type is none of base64's.
        safe["payloadType"] = signed["payloadType"]
        tried += safe != signed
        assert open_envelope(safe, key.public_key()) == payload
        assert open_envelope(signed, key.public_key()) == payload
    assert tried > 100


def test_a_note_that_is_no_unicode_text_is_a_failed_verification():
    surrogate = chr(0xD800)
    key = Ed25519PrivateKey.generate()
    verifier = NoteVerifier("log", key.public_key().public_bytes_raw())
    with pytest.raises(VerificationError, match="UTF-8"):
        open_note(f"log{surrogate}\n1\nAA==\n\n\u2014 log AAAAAAA=\n", verifier)
