"""The custodian, alone: what it takes of people, and what it forgets."""

import json
import socket
import threading
from dataclasses import replace

import pytest
from privyseald.keyholder import custodian as module
from privyseald.keyholder import kek as keks
from privyseald.keyholder.custodian import MAX_LINE, Custodian
from privyseald.keyholder.custody_settings import CustodySettings
from privyseald.keyholder.keystores import HsmSettings

KEK = bytes(range(32))


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def custodian_of(folder, record, **settings):
    if record is not None:
        (folder / keks.RECORD).write_text(record.text())
    return Custodian(record, CustodySettings(str(folder), **settings))


def test_shares_open_it_when_there_are_enough(folder):
    record, words = keks.split(KEK, 3, 4)
    custodian = custodian_of(folder, record)
    # The same share again is one share.
    for word, have in ((words[0], 1), (words[0], 1), (words[1], 2)):
        told = custodian.offer({"share": word})
        assert told == {"state": "sealed", "wants": "share", "have": have, "need": 3, "error": ""}
        assert custodian.kek is None
    told = custodian.offer({"share": words[3]})
    assert (told["state"], told["wants"], told["have"], told["error"]) == ("open", "", 0, "")
    assert custodian.kek == KEK


def test_shares_that_do_not_open_it_are_all_forgotten(folder):
    record, words = keks.split(KEK, 2, 3)
    other, _ = keks.split(KEK, 2, 3)
    custodian = custodian_of(folder, replace(record, sealed=other.sealed))
    assert custodian.offer({"share": words[0]})["have"] == 1
    told = custodian.offer({"share": words[1]})
    assert (told["have"], custodian.kek) == (0, None)
    assert "does not open" in told["error"]


def test_a_share_of_another_set_is_not_kept(folder):
    record, words = keks.split(KEK, 2, 3)
    _, others = keks.split(KEK, 2, 3)
    custodian = custodian_of(folder, record)
    told = custodian.offer({"share": others[0]})
    assert (told["have"], "another set" in told["error"]) == (0, True)
    assert "no share" in custodian.offer({"share": "word"})["error"]
    # Nor anything that is not asked for, or no text.
    for odd in ({"passphrase": "p" * 20}, {"pin": "1"}, {"share": 7}, {"share": ""}, {}):
        told = custodian.offer(odd)
        assert (told["have"], told["error"]) == (0, "")
    assert custodian.offer({"share": words[0]})["have"] == 1


def test_who_sealed_it_anew_has_the_old_shares_forgotten(folder):
    record, old = keks.split(KEK, 2, 3)
    custodian = custodian_of(folder, record)
    assert custodian.offer({"share": old[0]})["have"] == 1
    custodian.look_again()
    assert custodian.offer({})["have"] == 1

    anew, words = keks.split(KEK, 3, 3)
    (folder / keks.RECORD).write_text(anew.text())
    custodian.look_again()
    told = custodian.offer({"share": old[1]})
    assert (told["have"], told["need"], "another set" in told["error"]) == (0, 3, True)
    for word in words:
        custodian.offer({"share": word})
    assert custodian.kek == KEK


def test_who_sealed_it_so_that_it_opens_alone_waits_for_nobody(folder):
    record, _ = keks.split(KEK, 2, 3)
    custodian = custodian_of(folder, record)
    (folder / keks.RAW).write_bytes(KEK)
    (folder / keks.RAW).chmod(0o600)
    (folder / keks.RECORD).unlink()
    custodian.look_again()
    assert (custodian.kek, custodian.wants, custodian.provider) == (KEK, "", "file")


def test_a_record_that_cannot_be_read_changes_nothing(folder):
    record, words = keks.split(KEK, 2, 3)
    custodian = custodian_of(folder, record)
    custodian.offer({"share": words[0]})
    (folder / keks.RECORD).write_text("{")
    custodian.look_again()
    custodian.offer({"share": words[1]})
    assert custodian.kek == KEK


def test_a_share_is_not_tried_as_a_pin(folder):
    """Tokens lock after a few wrong ones, and officers type what is asked of them last."""
    record, words = keks.split(KEK, 2, 3)
    token = HsmSettings("/nowhere/module.so", "t", str(folder), pin_prompt=True)
    custodian = custodian_of(folder, record, token=token)
    assert custodian.wants == "pin"
    told = custodian.offer({"pin": words[0]})
    assert "that is a share" in told["error"]
    assert (told["wants"], custodian.pin) == ("pin", "")


@pytest.fixture
def reached(folder, monkeypatch):
    """Return how to reach a custodian that waits for a passphrase, and it."""
    monkeypatch.setitem(keks._ARGON2, "memory_cost", 64)
    record = keks.seal_with_passphrase(KEK, "correct horse battery")
    custodian = custodian_of(folder, record)
    listener = socket.create_server(("127.0.0.1", 0))
    work = threading.Thread(target=module._unseal, args=(custodian, listener), daemon=True)
    work.start()

    def connect():
        return socket.create_connection(listener.getsockname(), timeout=20)

    yield connect, custodian
    with connect() as last:
        ask(last, {"passphrase": "correct horse battery"})
    work.join(20)
    assert not work.is_alive()
    assert custodian.kek == KEK
    listener.close()


def ask(connection, request):
    connection.sendall(json.dumps(request).encode() + b"\n")
    return json.loads(connection.makefile().readline() or "null")


def test_who_says_nothing_keeps_nobody_from_unsealing(reached, monkeypatch):
    monkeypatch.setattr(module, "_LINE_SECONDS", 0.2)
    connect, _ = reached
    with connect() as silent, connect() as other:
        silent.sendall(b'{"passphrase":')
        assert ask(other, {})["wants"] == "passphrase"


def test_who_says_too_much_is_not_listened_to(reached, monkeypatch):
    monkeypatch.setattr(module, "_LINE_SECONDS", 60)
    connect, _ = reached
    with connect() as loud:
        loud.sendall(b"x" * MAX_LINE)
        assert loud.recv(1) == b""


@pytest.mark.parametrize("odd", [[], 7, "text", None, {"passphrase": ["x"]}])
def test_what_is_no_request_is_answered_by_nothing_that_was_asked(reached, odd):
    connect, custodian = reached
    with connect() as asking:
        told = ask(asking, odd)
    assert told is None or told["state"] == "sealed"
    assert custodian.kek is None


def test_a_wrong_passphrase_is_told_of_and_the_next_one_taken(reached):
    connect, custodian = reached
    with connect() as asking:
        told = ask(asking, {"passphrase": "incorrect horse battery"})
    assert "does not open" in told["error"]
    assert custodian.kek is None
