"""Which signature and which certificate an Expo device gets, of several."""

import asyncio
import hashlib
from types import SimpleNamespace

import pytest
from privyseal.verify.receipt import SchemeSignature
from privyseald.gateway.expo import _CHAINED_FOR, _chosen
from privyseald.gateway.follow import Certificate

NOW = 1_800_000_000
DAY = 86_400
ROOT, OTHER = b"r" * 32, b"o" * 32


def signature(number, scheme="expo-v1"):
    name = f"apps/a/keys/expo-v1/versions/{number}"
    return SchemeSignature(scheme, "rsa-2048", name, b"public%d" % number, b"signature%d" % number)


def digest(number):
    return hashlib.sha256(signature(number).public_key).digest()


def leaf(*, anchor=ROOT, begins=NOW - DAY, ends=NOW + DAY):
    return Certificate(b"c" * 32, anchor, begins, ends)


def chosen(certificates, trusts=None, extra=()):
    """Return the number of the version that is chosen, and what is sent with it; None if none is.

    Args:
        certificates: By the version's number; None for a version that has none.
        trusts: What the device's binary trusts; None if nobody registered it.
        extra: Signatures that are there, too.
    """

    class Resolver:
        async def certificate(self, name):
            return certificates[int(name.rpartition("/")[2])]

        async def certificate_bytes(self, name, _certificate):
            return name.rpartition("/")[2].encode()

    signatures = (*extra, *(signature(number) for number in certificates))
    build = None if trusts is None else SimpleNamespace(trusts=trusts)
    served = SimpleNamespace(receipt=SimpleNamespace(signatures=signatures), build=build)
    found = asyncio.run(_chosen(Resolver(), served, NOW))
    return found and (int(found[0].key_version.rpartition("/")[2]), found[1])


def test_a_key_that_the_binary_embeds_needs_no_certificate():
    assert chosen({1: leaf(), 2: None}, trusts=(digest(2),)) == (2, b"")
    assert chosen({1: leaf(), 2: leaf()}, trusts=(digest(2),)) == (2, b"")


def test_a_leaf_goes_with_its_certificate_to_who_embeds_its_root():
    assert chosen({1: leaf()}, trusts=(ROOT,)) == (1, b"1")


def test_a_leaf_of_another_root_is_for_others():
    assert chosen({1: leaf(anchor=OTHER)}, trusts=(ROOT,)) is None
    assert chosen({1: leaf(anchor=OTHER), 2: leaf()}, trusts=(ROOT,)) == (2, b"2")
    assert chosen({1: leaf(anchor=b"")}, trusts=(ROOT,)) is None


def test_of_a_binary_that_nobody_registered_what_needs_no_certificate_is_tried_first():
    assert chosen({1: leaf(anchor=b"")}) == (1, b"")
    assert chosen({1: None}) == (1, b"")
    assert chosen({1: leaf()}) == (1, b"1")


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_of_two_leaves_the_one_that_lasts_longer_is_sent(order):
    both = {1: leaf(ends=NOW + 2 * DAY), 2: leaf(ends=NOW + 3 * DAY)}
    assert chosen({number: both[number] for number in order}, trusts=(ROOT,)) == (2, b"2")


def test_a_certificate_that_has_not_begun_or_ends_while_it_downloads_is_not_sent():
    assert chosen({1: leaf(begins=NOW)}, trusts=(ROOT,)) == (1, b"1")
    assert chosen({1: leaf(begins=NOW + 1)}, trusts=(ROOT,)) is None
    assert chosen({1: leaf(ends=NOW + _CHAINED_FOR)}, trusts=(ROOT,)) == (1, b"1")
    assert chosen({1: leaf(ends=NOW + _CHAINED_FOR - 1)}, trusts=(ROOT,)) is None


def test_signatures_of_other_schemes_are_not_for_expo():
    other = signature(9, scheme="capawesome-v1")
    assert chosen({}, extra=[other]) is None
    assert chosen({1: None}, extra=[other]) == (1, b"")
