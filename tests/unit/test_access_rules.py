"""Who is let in, each rule alone: secrets, ends, denials, and what ends between a call's halves."""

import pytest
from privyseald.model.errors import (
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
)
from privyseald.model.policy import Action, Grant, Role
from privyseald.services.credentials import DEFAULT_TTL, MAX_TTL, MIN_TTL, Credentials
from privyseald.services.grants import Grants
from privyseald.services.secret_text import _checksum

from tests.simulator import APP

WRITE = Action.RELEASE_MANAGE


@pytest.fixture
def credentials(world):
    return Credentials(world.store, world.access, world.clock)


@pytest.fixture
def grants(world):
    def issuer(name):
        raise InvalidArgument("principal", f"{name} is no issuer")

    return Grants(world.store, world.access, world.clock, issuer)


def token(world, credentials, *, ttl=DEFAULT_TTL, roles=(Role.RELEASER,)):
    text, _ = world.run(
        credentials.create_token(
            *(world.olivia, world.request()), name="t", ttl=ttl, roles=list(roles), app=APP
        )
    )
    return text


def test_a_token_is_its_secret_and_not_its_id(world, credentials):
    text = token(world, credentials)
    assert world.run(world.access.by_token(text)).principal.startswith("token:")
    # The id is in every log; the rest, with a right checksum, is what nobody knows.
    body = text[:16] + "0" * (len(text) - 16 - 6)
    forged = body + _checksum(body)
    world.access.forget()
    with pytest.raises(Unauthenticated) as caught:
        world.run(world.access.by_token(forged))
    assert caught.value.reason == "TOKEN_UNKNOWN"


def test_a_token_ends_at_its_time_also_where_it_is_remembered(world, credentials):
    text = token(world, credentials, ttl=MIN_TTL)
    world.now += MIN_TTL - 1
    caller = world.run(world.access.by_token(text))
    permit = world.run(world.access.authorise(caller, WRITE, APP))
    world.now += 1
    for _ in range(2):
        # From memory, and then from the store.
        with pytest.raises(Unauthenticated) as caught:
            world.run(world.access.by_token(text))
        assert caught.value.reason == "TOKEN_EXPIRED"
        world.access.forget()
    # And what was allowed in its last second is not done after it.
    with pytest.raises(Unauthenticated):
        world.run(world.store.commit(lambda tx: (permit.confirm(tx), lambda _: b"")[1]))


@pytest.mark.parametrize(
    ("ttl", "good"), [(MIN_TTL - 1, False), (MAX_TTL, True), (MAX_TTL + 1, False)]
)
def test_a_token_lives_so_long_at_most(world, credentials, ttl, good):
    if good:
        token(world, credentials, ttl=ttl)
        return
    with pytest.raises(InvalidArgument, match="between an hour and 366 days"):
        token(world, credentials, ttl=ttl)


def give(world, principal, role, *, ends=0, app=APP):
    grant = Grant(f"{principal}-{role}-{ends}", principal, role, app, world.now, expires_at=ends)

    def act(tx):
        tx.grants.add(grant)
        return lambda _: b""

    world.run(world.store.commit(act))
    world.access.forget()
    return grant


def test_a_grant_ends_at_its_time(world):
    give(world, "certificate:ada", Role.RELEASER, ends=world.now + 100)
    ada = world.run(world.access.by_certificate("certificate:ada", "2a"))
    permit = world.run(world.access.authorise(ada, WRITE, APP))
    world.now += 100
    with pytest.raises(PermissionDenied):
        world.run(world.store.commit(lambda tx: (permit.confirm(tx), lambda _: b"")[1]))
    ada = world.run(world.access.by_certificate("certificate:ada", "2a"))
    assert ada.grants == ()
    with pytest.raises(PermissionDenied):
        world.run(world.access.authorise(ada, WRITE, APP))


def test_a_denied_certificate_is_let_in_by_no_way(world, credentials):
    give(world, "certificate:ada", Role.RELEASER)
    ada = world.run(world.access.by_certificate("certificate:ada", "2a"))
    permit = world.run(world.access.authorise(ada, WRITE, APP))
    world.run(
        credentials.deny_certificate(world.olivia, world.request(), serial="2a", reason="lost")
    )
    with pytest.raises(Unauthenticated) as caught:
        world.run(world.access.by_certificate("certificate:ada", "2a"))
    assert caught.value.reason == "CERTIFICATE_DENIED"
    with pytest.raises(Unauthenticated):
        world.run(world.store.commit(lambda tx: (permit.confirm(tx), lambda _: b"")[1]))
    # Another of hers counts.
    assert world.run(world.access.by_certificate("certificate:ada", "2b")).grants


def test_the_last_admin_is_not_taken_back(world, grants):
    admins = [g for g in world.view(lambda view: view.grants.list(app="-")) if g.role is Role.ADMIN]
    assert len(admins) == 2
    world.run(grants.revoke(world.olivia, world.request(), admins[1].id))
    with pytest.raises(FailedPrecondition) as caught:
        world.run(grants.revoke(world.olivia, world.request(), admins[0].id))
    assert caught.value.reason == "LAST_ADMIN"
    # One that ends is none to rely on, nor one on an app.
    give(world, "certificate:ada", Role.ADMIN, ends=world.now + 1000, app="-")
    give(world, "certificate:ben", Role.ADMIN)
    with pytest.raises(FailedPrecondition):
        world.run(grants.revoke(world.olivia, world.request(), admins[0].id))


@pytest.mark.parametrize(
    ("principal", "role", "conditions", "says"),
    [
        ("workload:ci:1", Role.SIGNER, (("nosuch", "x"),), "must be about"),
        ("workload:ci:1", Role.SIGNER, tuple((f"ref{n}", "x") for n in range(11)), "at most 10"),
        ("workload:ci:1", Role.SIGNER, (("ref", ""),), "conditions"),
        ("token:abc", Role.SIGNER, (("ref", "x"),), "for workloads alone"),
        ("token:abc", Role.APPROVER, (), "for people"),
        ("spiffe://example/ci", Role.RESPONDER, (), "for people"),
        ("workload:nosuch:1", Role.SIGNER, (), "is no issuer"),
    ],
)
def test_a_grant_that_nobody_could_use_is_refused(world, grants, principal, role, conditions, says):
    wanted = Grant("", principal, role, APP, conditions=conditions)
    with pytest.raises(InvalidArgument, match=says):
        world.run(grants.create(world.olivia, world.request(), wanted))
