"""What a statement says of a bundle is compared with every file in it."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from privyseal.bundling.bundle import write_bundle
from privyseal.verify import MANIFEST, bundle
from privyseal.verify.bundle import verify_bundle
from privyseal.verify.errors import VerificationError
from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate
from privyseal.verify.schemes import codepush_package_sha256
from privyseal.verify.statement import Statement

FILES = {
    "index.html": b"<h1>hello</h1>",
    "empty.txt": b"",
    "a/\u00e9 b.js": b"x" * 3_000_000,
    "logo.png": b"\x89PNG stored",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    for name, content in FILES.items():
        (folder / "www" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "www" / name).write_bytes(content)
    written = write_bundle(folder / "www", folder / "bundle.zip")
    expo = ExpoUpdate(
        "android",
        "1",
        "a/\u00e9 b.js",
        written.digests["a/\u00e9 b.js"],
        (ExpoAsset("logo.png", "image/png", ".png", written.digests["logo.png"]),),
    )
    data = written.path.read_bytes()
    statement = Statement(
        app="a",
        version="1",
        counter=1,
        bundle_sha256=written.sha256,
        bundle_length=written.length,
        manifest_sha256=written.manifest_sha256,
        native_ranges=(),
        source_commit="",
        signed_at=1,
        log_origin="log",
        bundle_blake2b=hashlib.blake2b(data).digest(),
        codepush_sha256=codepush_package_sha256(written.digests),
        expo=Expo((expo,)),
    )
    return data, statement


def of(data, statement):
    """Return a statement of other bytes that is right about the whole of them."""
    return replace(
        statement,
        bundle_sha256=hashlib.sha256(data).digest(),
        bundle_length=len(data),
        bundle_blake2b=b"",
    )


def test_a_bundle_is_what_its_statement_says(made):
    data, statement = made
    verify_bundle(io.BytesIO(data), statement)
    verify_bundle(io.BytesIO(data), replace(statement, bundle_blake2b=b"", codepush_sha256=b""))


@pytest.mark.parametrize(
    ("member", "value", "says"),
    [
        ("bundle_sha256", bytes(32), "not the bundle"),
        ("bundle_length", 1, "not the bundle"),
        ("bundle_blake2b", bytes(64), "BLAKE2b"),
        ("manifest_sha256", bytes(32), "another manifest"),
        ("codepush_sha256", bytes(32), "CodePush"),
    ],
)
def test_what_a_caller_had_signed_beside_the_bundle_is_found(made, member, value, says):
    data, statement = made
    with pytest.raises(VerificationError, match=says):
        verify_bundle(io.BytesIO(data), replace(statement, **{member: value}))


@pytest.mark.parametrize("which", ["launch", "asset", "missing"])
def test_what_expo_is_told_to_fetch_is_in_the_bundle(made, which):
    data, statement = made
    (update,) = statement.expo.updates
    other = {
        "launch": replace(update, launch_sha256=bytes(32)),
        "asset": replace(update, assets=(replace(update.assets[0], sha256=bytes(32)),)),
        "missing": replace(update, launch_path="index.android.hbc"),
    }[which]
    with pytest.raises(VerificationError, match="another file for Expo"):
        verify_bundle(io.BytesIO(data), replace(statement, expo=Expo((other,))))


def rezipped(data, change):
    """Return a zip with other entries, whose names and contents `change` maps."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w") as new:
        for name, content in change({e: old.read(e) for e in old.namelist()}):
            new.writestr(zipfile.ZipInfo(name), content)
    return target.getvalue()


CHANGES = {
    "another content": lambda f: {**f, "index.html": b"evil"}.items(),
    "another length": lambda f: {**f, "empty.txt": b"evil"}.items(),
    "one more": lambda f: {**f, "evil.js": b"evil"}.items(),
    "one less": lambda f: {n: c for n, c in f.items() if n != "logo.png"}.items(),
    "no manifest": lambda f: {n: c for n, c in f.items() if n != MANIFEST}.items(),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_files_than_the_manifest_lists_are_found(made, what):
    data, statement = made
    other = rezipped(data, CHANGES[what])
    with pytest.raises(VerificationError):
        verify_bundle(io.BytesIO(other), of(other, statement))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(made):
    data, statement = made
    twice = rezipped(data, lambda f: [*f.items(), ("index.html", b"evil")])
    with pytest.raises(VerificationError, match="two files of one name"):
        verify_bundle(io.BytesIO(twice), of(twice, statement))


def test_an_entry_that_only_some_readers_see_is_refused(made):
    """Who reads from the front finds it; who reads the directory at the end does not."""
    data, statement = made
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as archive:
        archive.writestr("evil.js", "evil")
        entry = hidden.getvalue()[: archive.start_dir or len(hidden.getvalue())]
    for other in (entry + data, b"#!/bin/sh\n" + data):
        with pytest.raises(VerificationError, match="more in it than its directory lists"):
            verify_bundle(io.BytesIO(other), of(other, statement))


def test_a_length_that_only_some_readers_see_is_refused(made):
    """Who reads from the front takes it from before the file, who does not from the directory."""
    data, statement = made
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.getinfo("logo.png")
    at = entry.header_offset + 18
    assert int.from_bytes(data[at : at + 4], "little") == entry.compress_size
    other = data[:at] + (entry.compress_size - 1).to_bytes(4, "little") + data[at + 4 :]
    with pytest.raises(VerificationError, match="more in it than its directory lists"):
        verify_bundle(io.BytesIO(other), of(other, statement))


def test_what_lies_before_the_directory_and_in_no_entry_is_refused(made):
    data, statement = made
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.start_dir
    end = bytearray(data[start:])
    # The end's own record has the directory's place, in its last six bytes but two.
    end[-6:-2] = (start + 4).to_bytes(4, "little")
    other = data[:start] + b"evil" + bytes(end)
    with zipfile.ZipFile(io.BytesIO(other)) as archive:
        assert archive.start_dir == start + 4
    with pytest.raises(VerificationError, match="more in it than its directory lists"):
        verify_bundle(io.BytesIO(other), of(other, statement))


def test_no_more_of_a_file_is_unpacked_than_the_manifest_lists(made, monkeypatch):
    """A small file can unpack to any length."""
    data, statement = made
    monkeypatch.setattr(bundle, "_PIECE", 1000)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = json.loads(archive.read(MANIFEST))
    for entry in listed:
        entry["size"] = min(entry["size"], 5000)
    manifest = json.dumps(listed).encode()
    other = rezipped(data, lambda f: {**f, MANIFEST: manifest}.items())
    right = replace(of(other, statement), manifest_sha256=hashlib.sha256(manifest).digest())
    pieces, read = [], zipfile.ZipExtFile.read

    def counting(self, *given):
        pieces.append(piece := read(self, *given))
        return piece

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counting)
    with pytest.raises(VerificationError, match="not the file that the manifest lists"):
        verify_bundle(io.BytesIO(other), right)
    assert sum(map(len, pieces)) < 100_000


def test_a_manifest_is_of_bounded_length(made, monkeypatch):
    data, statement = made
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        length = archive.getinfo(MANIFEST).file_size
    monkeypatch.setattr(bundle, "MAX_MANIFEST", length)
    verify_bundle(io.BytesIO(data), statement)
    monkeypatch.setattr(bundle, "MAX_MANIFEST", length - 1)
    with pytest.raises(VerificationError, match="too large"):
        verify_bundle(io.BytesIO(data), statement)


@pytest.mark.parametrize("integrity", ["", "md5-AAAA"])
def test_a_file_without_a_digest_that_can_be_checked_is_refused(made, integrity):
    data, statement = made
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = json.loads(archive.read(MANIFEST))
    listed[0]["integrity"] = integrity
    manifest = json.dumps(listed).encode()
    other = rezipped(data, lambda f: {**f, MANIFEST: manifest}.items())
    right = replace(of(other, statement), manifest_sha256=hashlib.sha256(manifest).digest())
    with pytest.raises(VerificationError, match="malformed"):
        verify_bundle(io.BytesIO(other), right)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"{}", b"[1]", b"[" * 50_000, b'[{"href":"index.html","size":1,"integrity":"md5-AA=="}]'],
)
def test_a_malformed_manifest_is_a_failed_verification(made, manifest):
    data, statement = made
    other = rezipped(data, lambda f: {**f, MANIFEST: manifest}.items())
    right = replace(of(other, statement), manifest_sha256=hashlib.sha256(manifest).digest())
    with pytest.raises(VerificationError):
        verify_bundle(io.BytesIO(other), right)


def test_a_manifest_that_lists_a_file_twice_is_refused(made):
    data, statement = made
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = json.loads(archive.read(MANIFEST))
    manifest = json.dumps([*listed, listed[0]]).encode()
    other = rezipped(data, lambda f: {**f, MANIFEST: manifest}.items())
    right = replace(of(other, statement), manifest_sha256=hashlib.sha256(manifest).digest())
    with pytest.raises(VerificationError, match="malformed"):
        verify_bundle(io.BytesIO(other), right)


@pytest.mark.parametrize("which", [bytes.find, bytes.rfind])
def test_a_name_that_says_it_is_utf8_and_is_not_is_a_failed_verification(made, which):
    whole, statement = made
    damaged = bytearray(whole)
    damaged[which(whole, "\u00e9".encode())] = 0xFF
    damaged = bytes(damaged)
    with pytest.raises(VerificationError, match="no zip that can be read"):
        verify_bundle(io.BytesIO(damaged), of(damaged, statement))


@given(at=st.integers(1, 600), flip=st.integers(1, 255), cut=st.integers(0, 600))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_zips_fail_as_a_verification_does(made, at, flip, cut):
    whole, statement = made
    # The directory and the headers of small entries, where the structure is.
    damaged = bytearray(whole)
    damaged[-at] ^= flip
    damaged = bytes(damaged[: len(damaged) - min(cut, at - 1)])
    try:
        verify_bundle(io.BytesIO(damaged), of(damaged, statement))
    except VerificationError:
        return
    with zipfile.ZipFile(io.BytesIO(damaged)) as archive:
        assert {n: archive.read(n) for n in archive.namelist() if n != MANIFEST} == FILES
