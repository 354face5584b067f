"""What signing remembers of an app is read once for all who wait for it."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace

import pytest
from privyseald.model.errors import NotFound, Unavailable
from privyseald.services.app_keys import RememberedKeys


def in_a_loop(test):
    @functools.wraps(test)
    def run():
        asyncio.run(asyncio.wait_for(test(), 10))

    return run


class Reads:
    """A store whose reads take their time, counted; each answers as of when it began."""

    def __init__(self) -> None:
        self.count = 0
        self.revision = 1
        self.go = asyncio.Event()
        self.fails = False
        self.apps = {"shop"}

    async def read(self, query):
        self.count += 1
        view = SimpleNamespace(
            revision=self.revision,
            apps=SimpleNamespace(get=lambda app: app in self.apps or None),
            keys=SimpleNamespace(list=lambda _: []),
            builds=SimpleNamespace(list=lambda _: []),
            releases=SimpleNamespace(last_signed=lambda _: (7, 0)),
        )
        await self.go.wait()
        if self.fails:
            raise Unavailable("the store cannot be read now", reason="STORE_DOWN")
        return query(view)


async def started(*calls):
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0.01)
    return tasks


@in_a_loop
async def test_many_at_once_are_one_read():
    store = Reads()
    known = RememberedKeys(store)
    tasks = await started(*(known.of("shop", 1) for _ in range(100)))
    store.go.set()
    found = await asyncio.gather(*tasks)
    assert store.count == 1
    assert all(keys is found[0] for keys in found)
    assert [known.next_counter("shop"), known.next_counter("shop")] == [8, 9]
    await known.of("shop", 1)
    assert store.count == 1


@in_a_loop
async def test_who_hangs_up_takes_nothing_from_the_others():
    store = Reads()
    known = RememberedKeys(store)
    first, second = await started(known.of("shop", 1), known.of("shop", 1))
    first.cancel()
    store.go.set()
    assert (await second).revision == 1
    assert store.count == 1


@in_a_loop
async def test_what_was_being_read_before_a_change_is_not_enough_after_it():
    store = Reads()
    known = RememberedKeys(store)
    (before,) = await started(known.of("shop", 1))
    store.revision = 2
    (after,) = await started(known.of("shop", 2))
    store.go.set()
    assert ((await before).revision, (await after).revision) == (1, 2)
    assert store.count == 2


@in_a_loop
async def test_what_was_being_read_when_it_was_to_be_forgotten_is_not_remembered():
    store = Reads()
    known = RememberedKeys(store)
    (old,) = await started(known.of("shop", 1))
    known.forget("shop")
    store.revision = 2
    (new,) = await started(known.of("shop", 1))
    store.go.set()
    assert ((await old).revision, (await new).revision) == (1, 2)
    assert (await known.of("shop", 1)).revision == 2


@in_a_loop
async def test_a_failed_read_fails_for_all_who_wait_and_for_nobody_else():
    store = Reads()
    known = RememberedKeys(store)
    tasks = await started(known.of("shop", 1), known.of("shop", 1))
    store.fails = True
    store.go.set()
    for task in tasks:
        with pytest.raises(Unavailable):
            await task
    store.fails = False
    assert (await known.of("shop", 1)).revision == 1


@in_a_loop
async def test_an_app_that_is_not_there_is_said_to_all():
    store = Reads()
    store.go.set()
    known = RememberedKeys(store)
    for call in (known.of("none", 1), known.of("none", 1)):
        with pytest.raises(NotFound):
            await call


def test_of_two_releases_the_later_has_the_later_time_for_expo():
    """Its devices compare seconds, and then the counter modulo 1,000."""
    known = RememberedKeys(Reads())
    clock = [50, 50, 50, 49, 50, 52]
    times = [
        (known.after_the_last("shop", counter, now), counter % 1000)
        for counter, now in zip(range(998, 1004), clock, strict=True)
    ]
    assert times == sorted(times)
    assert times == [(50, 998), (50, 999), (51, 0), (51, 1), (51, 2), (52, 3)]
