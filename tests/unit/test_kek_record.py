"""What seals the key-encryption key, and what is refused of it, by somebody who wrote kek.json."""

import json
import os

import pytest
from privyseald.keyholder import kek as keks
from privyseald.keyholder.kek import KekError, KekRecord

KEK, PASSPHRASE = bytes(range(32)), "correct horse battery"
ODD = [None, True, 0, 1, -1, 1.5, 1e308, 2**70, "", "x", "00", [], [1], {}, {"a": 1.5}]
GONE = object()


@pytest.fixture(scope="module")
def sealed():
    with pytest.MonkeyPatch.context() as cheap:
        cheap.setitem(keks._ARGON2, "memory_cost", 64)
        return {
            "passphrase": (keks.seal_with_passphrase(KEK, PASSPHRASE), None),
            "shares": keks.split(KEK, 2, 3),
        }


def opened(text, words):
    record = KekRecord.parse(text)
    if words is None:
        return keks.open_with_passphrase(record, PASSPHRASE)
    if record.provider != "shares":
        raise KekError("nobody asks for shares")
    return keks.join(record, words[: record.threshold])


@pytest.mark.parametrize("provider", ["passphrase", "shares"])
def test_whatever_is_changed_it_is_refused_in_words(sealed, provider):
    record, words = sealed[provider]
    assert opened(record.text(), words) == KEK
    fields = [("version",), ("provider",), ("check",), ("sealed",), ("params",)]
    for path in fields + [("params", name) for name in record.params]:
        for odd in (*ODD, GONE):
            value = json.loads(record.text())
            inner = value if len(path) == 1 else value[path[0]]
            if odd is GONE:
                del inner[path[-1]]
            elif inner[path[-1]] == odd and odd is not True:
                continue
            else:
                inner[path[-1]] = odd
            if path == ("version",) and odd is True:
                continue  # Python's True is 1.
            with pytest.raises(KekError):
                opened(json.dumps(value), words)


@pytest.mark.parametrize(
    ("name", "most"), [("iterations", 64), ("lanes", 64), ("memory_cost", 1 << 22)]
)
@pytest.mark.parametrize("far", [False, True])
def test_the_cost_of_a_passphrase_is_bounded(sealed, name, most, far):
    """Whoever can write kek.json could keep the daemon at work for ever."""
    record = json.loads(sealed["passphrase"][0].text())
    for cost in (most + 1, 0) if not far else (2**31, 2**70, -1):
        record["params"][name] = cost
        with pytest.raises(KekError, match="malformed"):
            opened(json.dumps(record), None)


@pytest.mark.parametrize("threshold", [-1, 0, 1, 17, True, "2", None, 2.0])
def test_a_threshold_is_a_number_that_makes_sense(sealed, threshold):
    record = json.loads(sealed["shares"][0].text())
    record["params"]["threshold"] = threshold
    with pytest.raises(KekError, match="malformed"):
        KekRecord.parse(json.dumps(record))


@pytest.mark.parametrize(("threshold", "shares"), [(1, 2), (0, 2), (3, 2), (2, 17), (17, 17)])
def test_shares_that_make_no_sense_are_not_made(threshold, shares):
    with pytest.raises(KekError, match="2 <= threshold <= shares <= 16"):
        keks.split(KEK, threshold, shares)


@pytest.mark.parametrize(("threshold", "shares"), [(2, 2), (16, 16), (2, 16)])
def test_any_so_many_shares_open_it_and_fewer_do_not(threshold, shares):
    record, words = keks.split(KEK, threshold, shares)
    assert len(set(words)) == shares
    assert keks.join(record, words[-threshold:]) == KEK
    with pytest.raises(KekError, match="do not fit"):
        keks.join(record, words[: threshold - 1])


def test_shares_of_another_set_do_not_open_it(sealed):
    record, words = sealed["shares"]
    _, others = keks.split(KEK, 2, 3)
    with pytest.raises(KekError, match="do not fit"):
        keks.join(record, [words[0], others[0]])
    with pytest.raises(KekError, match="does not open"):
        keks.join(record, others[:2])


def test_a_passphrase_has_twelve_characters_or_more():
    with pytest.raises(KekError, match="fewer than 12"):
        keks.seal_with_passphrase(KEK, "a" * 11)
    record = keks.seal_with_passphrase(KEK, "a" * 12)
    assert keks.open_with_passphrase(record, "a" * 12) == KEK
    with pytest.raises(KekError, match="does not open"):
        keks.open_with_passphrase(record, "a" * 13)


@pytest.mark.parametrize("size", [0, 31, 33, 64, 100_000])
def test_a_key_that_is_not_32_bytes_is_not_read(tmp_path, size):
    file = tmp_path / "kek"
    file.write_bytes(bytes(size))
    file.chmod(0o600)
    with pytest.raises(KekError, match="not 32 bytes"):
        keks.read_kek_file(file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_key_that_others_can_touch_is_not_read(tmp_path, mode):
    file = tmp_path / "kek"
    file.write_bytes(KEK)
    file.chmod(mode)
    with pytest.raises(PermissionError, match="by others"):
        keks.read_kek_file(file)
    file.chmod(0o400)
    assert keks.read_kek_file(file) == KEK


def test_a_key_may_come_in_pieces():
    ours, theirs = os.pipe()
    for piece in (KEK[:1], KEK[1:20], KEK[20:]):
        os.write(theirs, piece)
    os.close(theirs)
    assert keks.read_kek(ours) == KEK
    os.close(ours)


def test_a_record_is_read_up_to_its_bound(tmp_path, sealed):
    record = sealed["passphrase"][0]
    assert keks.read_record(tmp_path) is None
    text = record.text()
    (tmp_path / keks.RECORD).write_text(text + " " * (keks.MAX_RECORD - len(text)))
    assert keks.read_record(tmp_path) == record
    # What lies beyond the bound is not read, whatever it is.
    (tmp_path / keks.RECORD).write_text(" " * keks.MAX_RECORD + text)
    with pytest.raises(KekError, match="malformed"):
        keks.read_record(tmp_path)
    (tmp_path / keks.RECORD).write_text("[" * keks.MAX_RECORD)
    with pytest.raises(KekError, match="malformed"):
        keks.read_record(tmp_path)
    (tmp_path / keks.RECORD).write_bytes(b"\xff")
    with pytest.raises(KekError, match="cannot be read"):
        keks.read_record(tmp_path)


def test_a_credential_is_this_daemons_key_and_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    for path, content in (("credentials/kek", KEK), ("credentials/other", bytes(32)), ("kek", KEK)):
        (tmp_path / path).write_bytes(content)
        (tmp_path / path).chmod(0o400)

    def of(name):
        return KekRecord("credential", keks.check_of(KEK), {"name": name})

    assert keks.open_credential(of("kek")) == KEK
    with pytest.raises(KekError, match="not this daemon's"):
        keks.open_credential(of("other"))
    (tmp_path / "credentials/kek").unlink()
    for name in ("../kek", str(tmp_path / "kek"), "none"):
        with pytest.raises(KekError, match="no systemd credential"):
            keks.open_credential(of(name))
