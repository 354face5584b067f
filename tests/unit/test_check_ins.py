"""What is counted of devices: bounded, in the form of versions, and never lost to a busy store."""

import asyncio

import pytest
from privyseald.gateway.check_ins import MOST_STRANGERS, CheckInCounter
from privyseald.model.errors import Unavailable
from privyseald.model.lifecycle import DAY
from privyseald.model.native import NativeVersion


class Shelf:
    """Where the counts go; it fails as often as it is told to, and then something is noted."""

    def __init__(self):
        self.rows, self.fails, self.meanwhile = [], 0, lambda: None

    async def count(self, rows):
        if self.fails:
            self.fails -= 1
            self.meanwhile()
            raise Unavailable("come back", reason="BUSY")
        self.rows += rows

    def counted(self):
        return {(r.platform, r.version_name, r.version_code): r.count for _, r in self.rows}


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def days():
    return [100]


@pytest.fixture
def counter(shelf, days):
    return CheckInCounter(shelf, lambda: days[0] * DAY + 5)


def stranger(number):
    return NativeVersion("ios", f"1.0.{number}", str(number))


def test_a_platform_that_there_is_not_is_among_the_others(counter, shelf):
    for platform in ("windows", "", "ios\n", "IOS"):
        counter.note("a", None, NativeVersion(platform, "1.0.0", "1"))
    asyncio.run(counter.flush())
    assert shelf.counted() == {("", "other", ""): 4}


def test_a_version_that_was_seen_is_counted_by_name_though_there_are_many(counter, shelf):
    for number in range(MOST_STRANGERS + 3):
        counter.note("a", None, stranger(number))
    counter.note("a", None, stranger(0))
    # Each app has as many of its own.
    counter.note("b", None, stranger(999))
    asyncio.run(counter.flush())
    counted = shelf.counted()
    assert counted["ios", "1.0.0", "0"] == 2
    assert counted["ios", "other", ""] == 3
    assert counted["ios", "1.0.999", "999"] == 1


def test_versions_of_days_that_have_gone_are_not_remembered(counter, days):
    for day in range(100, 130):
        days[0] = day
        counter.note("a", None, stranger(day))
        asyncio.run(counter.flush())
    assert len(counter._strangers) <= 2


def test_what_a_busy_store_did_not_take_comes_with_what_was_noted_meanwhile(counter, shelf):
    counter.note("a", None, stranger(1))
    shelf.fails, shelf.meanwhile = 1, lambda: counter.note("a", None, stranger(1))
    with pytest.raises(Unavailable):
        asyncio.run(counter.flush())
    asyncio.run(counter.flush())
    assert shelf.counted() == {("ios", "1.0.1", "1"): 2}


def test_nothing_is_written_when_nobody_asked(counter, shelf):
    shelf.fails = 1
    asyncio.run(counter.flush())
    assert shelf.fails == 1
