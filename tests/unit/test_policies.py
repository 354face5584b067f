"""The policies against an independent oracle, and what is refused when they are loaded."""

import asyncio
import random

import pytest
from privyseal.verify.note import Checkpoint
from privyseald.adapters.policies_cedar import CedarPolicies, builtin_text, schema_text
from privyseald.adapters.sql_engine import migrate
from privyseald.adapters.store_sql import SqlStore
from privyseald.model.errors import InvalidArgument, Unauthenticated
from privyseald.model.policy import Action, Caller, Grant, Query, Role
from privyseald.model.records import PolicyRecord
from privyseald.services.access import Access

# Written down a second time on purpose: the oracle must not share a table with the code.
ALLOWED = {
    "admin": "app.create app.read access.manage key.read release.read log.read policy.read "
    "approval.request",
    "security-officer": "key.manage key.destroy key.import key.force-retire native.manage "
    "release.withdraw backup.export app.read key.read release.read policy.manage policy.read "
    "approval.request",
    "signer": "release.sign app.read key.read release.read",
    "releaser": "release.manage release.deploy release.withdraw native.manage app.read key.read "
    "release.read approval.request",
    "auditor": "log.read app.read key.read release.read policy.read",
    "approver": "approval.give app.read key.read release.read",
    "responder": "break-glass app.read key.read release.read",
}
NEEDS_CONSENT = {
    *("key.destroy", "key.import", "key.force-retire", "backup.export", "policy.manage"),
}
REFS = ["refs/heads/main", "refs/heads/dev", "refs/tags/v1"]
APPS = ["a", "b", "c"]
CHANNELS = ["", "production", "beta"]


def emergency(caller, app):
    return any(g.break_glass and g.app in (app, "-") for g in caller.grants)


def random_conditions(chance, *, workload):
    """Return conditions: the text of each, and what it means as a function."""
    channel, least, ref = chance.choice(CHANNELS), chance.randint(0, 3), chance.choice(REFS)
    conditions = [
        (f'context.channel == "{channel}"', lambda _, q: q.channel == channel),
        (f"context.approvals >= {least}", lambda _, q: q.approvals >= least),
        ("context.window", lambda _, q: q.window),
        ("context.break_glass", lambda c, q: emergency(c, q.app)),
    ]
    if workload:
        text = f'(principal has ref && principal.ref == "{ref}")'
        conditions.append((text, lambda c, _: c.attributes.get("ref") == ref))
    return conditions


def team_policy(chance, number):
    """Return a random policy: its text, and what it means as a function."""
    effect = chance.choice(["permit", "forbid", "forbid"])
    action = chance.choice([None, *Action])
    app = chance.choice([None, *APPS])
    kind = chance.choice([None, "Workload", "Token"])
    possible = random_conditions(chance, workload=kind == "Workload")
    conditions = chance.sample(possible, chance.randint(0, 3))
    word = chance.choice(["when", "unless"])
    text = (
        f'@id("team.{number}") {effect} ('
        + (f"principal is {kind}, " if kind else "principal, ")
        + (f'action == Action::"{action}", ' if action else "action, ")
        + (f'resource == App::"{app}")' if app else "resource)")
        + (f" {word} {{ {' && '.join(t for t, _ in conditions)} }}" if conditions else "")
        + ";"
    )

    def applies(caller, query):
        if kind and caller.kind != kind.lower():
            return False
        if (action and query.action != action) or (app and query.app != app):
            return False
        if not conditions:
            return True
        held = all(test(caller, query) for _, test in conditions)
        return held if word == "when" else not held

    return text, effect, applies


def oracle(caller, query, team, needed):
    """Say what the answer must be, from the words of the documentation alone."""
    if not query.bound:
        return False
    if query.action in {"approval.give", "break-glass"} and caller.kind != "certificate":
        return False
    if needed and query.action in NEEDS_CONSENT and query.approvals < needed:
        return False
    if any(effect == "forbid" and applies(caller, query) for _, effect, applies in team):
        return False
    if any(effect == "permit" and applies(caller, query) for _, effect, applies in team):
        return True
    return any(
        grant.app in {"-", query.app}
        and query.action in ALLOWED[grant.role].split()
        and all(caller.attributes.get(name) == value for name, value in grant.conditions)
        for grant in caller.grants
    )


def random_caller(chance):
    workload = chance.random() < 0.6
    attributes = {"issuer": "github", "ref": chance.choice(REFS)} if workload else {}
    if workload and chance.random() < 0.2:
        del attributes["ref"]
    grants = tuple(
        Grant(
            f"g{n}",
            "x",
            chance.choice(list(ALLOWED)),
            chance.choice(["-", *APPS]),
            conditions=(("ref", chance.choice(REFS)),)
            if workload and chance.random() < 0.5
            else (),
            break_glass=chance.random() < 0.1,
        )
        for n in range(chance.randint(0, 4))
    )
    person = chance.choice(["token:abc", "certificate:alice", "spiffe://prod.example/x"])
    return Caller(
        f"workload:github:{chance.randint(1, 2)}" if workload else person,
        grants,
        attributes=attributes,
    )


def random_query(chance):
    return Query(
        chance.choice(list(Action)),
        chance.choice(["-", *APPS]),
        channel=chance.choice(CHANNELS),
        bound=chance.random() < 0.9,
        approvals=chance.randint(0, 3),
        window=chance.random() < 0.5,
    )


def compare(pairs, seed):
    """Compare random pairs of policies and requests; return how many, and how many allowed."""
    chance = random.Random(seed)
    done = allowed = 0
    while done < pairs:
        needed = chance.randint(0, 2)
        team = [team_policy(chance, n) for n in range(chance.randint(0, 5))]
        policies = CedarPolicies(needed).compile("\n".join(text for text, _, _ in team))
        for _ in range(5):
            caller = random_caller(chance)
            decider = policies.decider(caller)
            for _ in range(40):
                query = random_query(chance)
                answer = decider.decide(query)
                assert answer.allowed == oracle(caller, query, team, needed), (team, caller, query)
                assert not (answer.allowed and not answer.policies), "nothing is allowed by nothing"
                done += 1
                allowed += answer.allowed
    return done, allowed


def test_decisions_are_those_of_an_independent_oracle():
    done, allowed = compare(20_000, seed=1)
    assert done / 20 < allowed < done / 2, "both answers are common"


@pytest.mark.long
def test_a_million_decisions_are_those_of_an_independent_oracle():
    done, allowed = compare(1_000_000, seed=2)
    assert done >= 1_000_000
    assert done / 20 < allowed < done / 2
    print(f"{done:,} pairs, {allowed:,} allowed")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("permit (", "unexpected end"),
        ("permit (principal, action, resource);", "has no name"),
        ('@id("a") permit (principal, action == Action::"fly", resource);', "fly"),
        ('@id("a") permit (principal, action, resource) when { principal.shoe == 1 };', "shoe"),
        ('@id("a") permit (principal == ?principal, action, resource);', "templates"),
        ('@id("builtin.bound") permit (principal, action, resource);', "is taken"),
        ('@id("a") permit (principal is Token, action, resource); ' * 2, "is taken"),
        (
            '@id("a") permit (principal is Workload, action, resource) when {principal.sha == ""};',
            "sha",
        ),
        ('@id("a") permit (principal, action, resource) when { context.approvals == "1" };', "a:"),
        ("//" + "x" * 300_000, "262,144 bytes"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(text, told):
    with pytest.raises(InvalidArgument, match=told) as error:
        CedarPolicies(1).compile(text)
    assert len(error.value.message) < 600
    assert "\n" not in error.value.message


def test_a_policy_that_fails_while_it_is_asked_denies():
    # Cedar skips what it cannot evaluate; skipping a forbid would open a door.
    team = (
        '@id("sum") forbid (principal, action, resource) '
        "when { 9223372036854775807 + context.approvals > 0 };"
    )
    grants = (Grant("g", "token:t", "signer", "-"),)
    decider = CedarPolicies(0).compile(team).decider(Caller("token:t", grants))
    answer = decider.decide(Query(Action.RELEASE_SIGN, "a", approvals=1))
    assert (answer.allowed, answer.policies) == (False, ("error",))


def test_nobody_is_allowed_anything_before_the_policies_are_known():
    caller = Caller("token:t", (Grant("g", "token:t", "admin", "-"),))
    assert not caller.decide(Query(Action.APP_READ, "a")).allowed


def test_the_built_in_policies_fit_their_own_schema():
    import cedarpy

    assert cedarpy.validate_policies(builtin_text(2), schema_text()).validation_passed


def test_an_emergency_on_one_app_opens_no_other():
    text = """
    @id("two") forbid (principal, action == Action::"release.deploy", resource)
    unless { context.approvals >= 2 || context.break_glass };
    """
    who = "certificate:rita"
    held = Grant("1", who, Role.RELEASER, "-")
    glass = Grant("2", who, Role.AUDITOR, "a", expires_at=1, break_glass=True)
    caller = Caller(who, (held, glass), credential="1f")
    decider = CedarPolicies(1).compile(text).decider(caller)
    assert decider.decide(Query(Action.RELEASE_DEPLOY, "a")).allowed
    for other in ("b", "-"):
        assert decider.decide(Query(Action.RELEASE_DEPLOY, other)).policies == ("two",)


@pytest.mark.parametrize(
    "condition",
    [
        'principal has sha && principal.sha == "1"',
        'principal has "sha" && principal["sha"] == "1"',
        r'principal has "\u{73}ha" && principal["s\u{68}a"] == "1"',
        'principal has sha && principal.sha like "1*"',
    ],
)
def test_jobs_that_policies_tell_apart_share_no_decision(condition):
    text = (
        '@id("one") forbid (principal is Workload, action == Action::"release.sign", resource) '
        f"unless {{ {condition} }};"
    )
    who = "workload:github:1"
    policies = CedarPolicies(1).compile(text)
    asked = Query(Action.RELEASE_SIGN, "a")
    for _ in range(2):
        for sha, allowed in (("1", True), ("2", False)):
            attributes = {"issuer": "github", "sha": sha, "run": sha}
            caller = Caller(who, (Grant("g", who, Role.SIGNER, "a"),), attributes=attributes)
            assert policies.decider(caller).decide(asked).allowed is allowed


def test_jobs_that_look_the_same_to_policies_share_decisions_but_not_conditions():
    who = "workload:github:1"
    held = Grant("g", who, Role.SIGNER, "a", conditions=(("ref", "refs/heads/main"),))
    policies = CedarPolicies(1).compile("")

    def job(run: str, ref: str) -> Caller:
        return Caller(who, (held,), attributes={"issuer": "github", "run": run, "ref": ref})

    first, second = (policies.decider(job(run, "refs/heads/main")) for run in "12")
    assert first is second
    asked = Query(Action.RELEASE_SIGN, "a")
    assert first.decide(asked).allowed
    assert not policies.decider(job("3", "refs/heads/dev")).decide(asked).allowed
    revoked = Caller(who, (), attributes=job("4", "refs/heads/main").attributes)
    assert not policies.decider(revoked).decide(asked).allowed


def test_what_was_undone_is_not_remembered_as_what_is_allowed(tmp_path):
    # An act that is undone gives its revision back: the next change gets the same number.
    url = f"sqlite:///{tmp_path / 'test.db'}"
    migrate(url, lambda checkpoint: checkpoint.text(), "test")

    class Kept:
        def read(self):
            return None

        def doubt(self):
            return ""

        def write(self, note):
            assert note

    store = SqlStore(
        url, clock=lambda: 1, sign_checkpoint=Checkpoint.text, origin="test", kept=Kept()
    )
    access = Access(store, CedarPolicies(1), lambda: 1, None)
    who = Caller("certificate:rita", credential="1f")
    asked = Query(Action.RELEASE_SIGN, "a")

    def change(role, text, *, fails):
        def act(tx):
            tx.grants.add(Grant(role, who.principal, role, "a"))
            tx.policies.add(PolicyRecord(1, text, "certificate:rita", 1))
            assert access.again(tx, who, 1).decide(asked).allowed is (role == "signer")
            if fails:
                raise Unauthenticated("the act is undone", reason="TEST")
            return lambda _: b""

        return store.commit(act)

    async def undo_and_do():
        try:
            with pytest.raises(Unauthenticated):
                await change("signer", '@id("x") permit (principal, action, resource);', fails=True)
            await change("auditor", "", fails=False)
            return await store.read(lambda view: access.again(view, who, 1))
        finally:
            await store.close()

    now = asyncio.run(undo_and_do())
    assert [grant.role for grant in now.grants] == ["auditor"]
    assert not now.decide(asked).allowed
