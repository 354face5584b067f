"""A backup's form: each rule of it, broken alone."""

import dataclasses
import io

import pytest
from privyseal.verify.backup import (
    CHUNK,
    MAGIC,
    MAX_HEADER,
    RECIPIENT,
    BodyWriter,
    Header,
    Recipient,
    new_recipient,
    parse_recipient,
    read_body,
    read_header,
)
from privyseal.verify.errors import VerificationError

HEADER = Header(
    id="00" * 16,
    origin="example.com/log",
    created_at=1_800_000_000,
    checkpoint="note",
    threshold=2,
    recipients=(Recipient(b"a" * 32, b"share"), Recipient(b"b" * 32, b"share")),
    sealed_kek=b"kek",
    kek_check="00",
)
KEY = bytes(range(32))


def test_a_header_is_what_it_was():
    assert read_header(io.BytesIO(MAGIC + HEADER.line())) == HEADER


@pytest.mark.parametrize("threshold", [-1, 0, 3])
def test_a_threshold_is_one_that_its_recipients_can_reach(threshold):
    line = dataclasses.replace(HEADER, threshold=threshold).line()
    with pytest.raises(VerificationError, match="not in its one valid form"):
        Header.parse(line)


def test_a_header_has_one_form():
    line = HEADER.line()
    for other in (b" " + line, line.replace(b'":', b'": ', 1), line.removesuffix(b"\n") + b" \n"):
        with pytest.raises(VerificationError, match="not in its one valid form"):
            Header.parse(other)


def test_a_header_is_whole_and_of_bounded_length():
    cut = HEADER.line().removesuffix(b"\n")
    long = dataclasses.replace(HEADER, origin="x" * MAX_HEADER).line()
    for line in (cut, long):
        with pytest.raises(VerificationError, match="too long, or cut off"):
            read_header(io.BytesIO(MAGIC + line))
    with pytest.raises(VerificationError, match="not a Privyseal backup"):
        read_header(io.BytesIO(b"PK" + MAGIC + HEADER.line()))


@pytest.mark.parametrize("length", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_body_is_what_it_was(length):
    file, data = io.BytesIO(), bytes(length)
    writer = BodyWriter(file, KEY)
    writer.write(data)
    writer.finish()
    file.seek(0)
    assert b"".join(read_body(file, KEY)) == data
    # Cut off at any chunk's end, it is not taken for whole.
    whole = file.getvalue()
    for end in (len(whole) - 4, len(whole) - 5, 4, 0):
        with pytest.raises(VerificationError):
            list(read_body(io.BytesIO(whole[:end]), KEY))


def test_a_body_that_ends_before_its_last_chunk_is_noticed():
    """Though its end is marked as an end."""
    file = io.BytesIO()
    writer = BodyWriter(file, KEY)
    writer.write(bytes(CHUNK + 1))
    writer.finish()
    first = file.getvalue()[: 4 + CHUNK + 16]
    with pytest.raises(VerificationError, match="chunk 0 of the backup was changed"):
        list(read_body(io.BytesIO(first + bytes(4)), KEY))


@pytest.mark.parametrize("length", [1, 15, CHUNK + 17, 2**32 - 1])
def test_a_chunk_is_of_bounded_length(length):
    """Nobody reads four gigabytes into memory for a file that says so."""
    file = io.BytesIO(length.to_bytes(4, "big") + bytes(100))
    with pytest.raises(VerificationError, match="length out of bounds"):
        list(read_body(file, KEY))


def test_a_recipient_is_a_public_key():
    assert parse_recipient(new_recipient(KEY) + "\n") == KEY
    text = new_recipient(KEY).removeprefix(RECIPIENT)
    short, long = new_recipient(KEY[:31]), new_recipient(KEY + b"x")
    for bad in (text, short, long, RECIPIENT, RECIPIENT + "***", ""):
        with pytest.raises(VerificationError, match="a public key of 32 bytes"):
            parse_recipient(bad)
