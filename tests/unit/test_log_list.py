"""`privyseal log list` reads no more of the log than it shows."""

import contextlib
import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from privyseal.cli import log
from privyseal.cli.main import cli
from privyseal.v1 import log_service_pb2 as pb
from privyseal.verify.canonical import canonical
from privyseal.verify.errors import VerificationError

LEAVES = [
    canonical(
        {
            "act": "deploy" if n % 10 == 0 else "release.sign",
            "app": "apart" if n == 24 else "a",
            "principal": "token:x",
            "time": 1_800_000_000 + n,
        }
    )
    for n in range(25)
]


@pytest.fixture
def asked(monkeypatch):
    """Have a daemon with these leaves; return which of them it was asked for."""
    asked = []

    def entries(request):
        end = min(request.start + request.page_size, len(LEAVES))
        # Shorter than was asked for, as a daemon's answers may be.
        rows = [
            pb.ListEntriesResponse(log_size=len(LEAVES)),
            *(range(request.start, min(end, request.start + 4))),
        ]
        for index in rows[1:]:
            rows[0].entries.add(index=index, leaf=LEAVES[index])
        if request.start or request.page_size > 1:
            asked.extend(rows[1:])
        return rows[0]

    to = SimpleNamespace(log=SimpleNamespace(ListEntries=entries))
    to.call = lambda method, request: method(request)
    monkeypatch.setattr(log, "connect", lambda: contextlib.nullcontext(to))
    monkeypatch.setattr(log, "_PAGE", 10)
    return asked


def shown(*options):
    done = CliRunner().invoke(cli, ["log", "list", "--json", *options])
    assert done.exit_code == 0, done.output
    return [row["index"] for row in json.loads(done.stdout)["entries"]]


def test_the_newest_are_read_from_the_end(asked):
    assert shown("--last", "3") == [22, 23, 24]
    assert min(asked) == 15


def test_it_reads_on_until_it_has_as_many_as_were_asked_for(asked):
    assert shown("--act", "deploy", "--last", "2") == [10, 20]
    assert min(asked) == 5
    assert shown("--act", "deploy", "--last", "9") == [0, 10, 20]


def test_all_of_them_are_shown_in_order(asked):
    assert shown("--last", "0") == list(range(25))
    assert sorted(asked) == list(range(25))


def test_an_app_is_named_either_way(asked):
    assert shown("--app-id", "apart") == shown("--app-id", "apps/apart") == [24]
    assert len(asked) == 2 * len(LEAVES)


@pytest.mark.parametrize("wrong", [[], [1], [0, 2], [0, 0], [1, 0]])
def test_leaves_are_shown_in_their_order_and_none_is_left_out(wrong):
    def entries(_):
        answer = pb.ListEntriesResponse(log_size=3)
        for index in wrong:
            answer.entries.add(index=index, leaf=LEAVES[index])
        return answer

    to = SimpleNamespace(log=SimpleNamespace(ListEntries=entries))
    to.call = lambda method, request: method(request)
    with pytest.raises(VerificationError, match="does not show leaf 0"):
        log._leaves(to, 0, 3)


@pytest.mark.parametrize(
    ("facts", "told", "says"),
    [
        ({}, {"a": "1"}, "the daemon lacks a"),
        ({"a": "1"}, {}, "the log does not tell of a"),
        ({"a": "1"}, {"a": "2"}, "of a the daemon says: 1; the log tells: 2"),
    ],
)
def test_what_the_daemon_has_is_compared_with_what_the_log_tells(facts, told, says):
    with pytest.raises(VerificationError, match=says):
        log._compare(facts, told, set())
    log._compare(facts, told, {"a"})
