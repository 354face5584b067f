"""What every call goes through, and that every method of the protos is there."""

import asyncio
import contextlib

import pytest
from privyseal.verify.statement import NativeRange
from privyseald.model import fields
from privyseald.model.errors import InvalidArgument, Unauthenticated, Unavailable
from privyseald.model.limits import Buckets
from privyseald.rpc.calls import _share
from privyseald.rpc.registration import SERVICERS


@pytest.mark.parametrize("servicer", SERVICERS, ids=lambda kind: kind.__name__)
def test_no_method_is_left_to_the_generated_base(servicer):
    base = servicer.__mro__[1]
    assert base.__module__.startswith("privyseal.v1.")
    methods = [name for name in vars(base) if not name.startswith("_")]
    assert methods
    assert [name for name in methods if name not in vars(servicer)] == []


@pytest.mark.parametrize(
    ("end", "left"),
    [
        (Unauthenticated("no", reason="X"), 0),
        (asyncio.CancelledError(), 0),
        (Unavailable("down", reason="X"), 1),
        (None, 1),
    ],
)
def test_who_fails_or_hangs_up_has_had_its_share(end, left):
    failures = Buckets(0.001, 1)
    with (
        contextlib.suppress(Unauthenticated, Unavailable, asyncio.CancelledError),
        _share(failures, "them", 0) as taken,
    ):
        assert taken
        if isinstance(end, BaseException):
            raise end
    assert failures.take("them", 0) is bool(left)


def test_a_time_that_has_passed_is_not_counted_again():
    failures = Buckets(1, 1)
    taken = [failures.take("them", at) for at in (10, 5, 10, 5, 10, 11)]
    assert taken == [True, False, False, False, False, True]


@pytest.mark.parametrize(
    ("least", "most", "other", "empty"),
    [
        ("2", "1", "", True),
        ("1.10.0", "1.9", "", True),
        ("1.0", "1.0.0", "1", True),
        ("1.0", "1.0.0", "", False),
        ("1.0", "1.1", "1.0", False),
        ("2.0.0", "17", "", False),
        ("", "1", "1", False),
        ("3", "", "", False),
    ],
)
def test_a_range_that_no_version_is_in_is_refused(least, most, other, empty):
    given = (NativeRange("android", least, most, other),)
    if empty:
        with pytest.raises(InvalidArgument, match="no version of android is in it"):
            fields.native_ranges(given)
    else:
        assert fields.native_ranges(given) == given


@pytest.mark.parametrize(
    ("collections", "form"),
    [(["policies"], "policies/{policy}"), (["apps", "keys"], "apps/{app}/keys/{key}")],
)
def test_a_name_of_another_form_is_told_the_form(collections, form):
    with pytest.raises(InvalidArgument) as caught:
        fields.parts("x", "name", *collections)
    assert str(caught.value) == f"name: must be of the form {form}"
