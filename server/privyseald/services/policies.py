"""The team's policies: put in force, tried out, explained."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from privyseald.model import fields
from privyseald.model.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from privyseald.model.policy import Action, Caller, Decision, Grant, Query
from privyseald.model.records import PolicyRecord
from privyseald.model.workload import ATTRIBUTES
from privyseald.ports import Clock, Policies, PolicySet, Request, Sealed, Store, Transaction, View
from privyseald.services.access import Access
from privyseald.services.replay import replayed

MAX_CASES = 1000
MAX_TRYING = 8
"""Texts that are compiled or wait for it; each can take seconds."""


@dataclass(frozen=True)
class Case:
    """A question that was thought up: who, with which grants besides the real ones, asks what."""

    caller: Caller
    query: Query


@dataclass(frozen=True)
class Explanation:
    """An answer, and what could have mattered.

    Attributes:
        decision: What the policies say.
        grants: The caller's grants that are about the app.
        unmet: Grant id -> the condition that the caller does not meet.
    """

    decision: Decision
    grants: tuple[Grant, ...]
    unmet: dict[str, str]


class TeamPolicies:
    """Applies and asks policies.

    Args:
        store: Where they are.
        access: Says who may.
        policies: Compiles them.
        clock: Tells the time.
        try_out: Compiles them where nothing else can die of it; blocks, and raises
            InvalidArgument.
    """

    def __init__(
        self,
        store: Store,
        access: Access,
        policies: Policies,
        clock: Clock,
        *,
        try_out: Callable[[str], None],
    ) -> None:
        self._store = store
        self._access = access
        self._policies = policies
        self._clock = clock
        self._try_out = try_out
        self._one = asyncio.Semaphore(1)
        self._trying = 0

    @replayed
    async def apply(self, caller: Caller, request: Request, text: str, replaces: int) -> bytes:
        """Put policies in force; the answer is made of the PolicyRecord.

        Args:
            caller: Who does it.
            request: What makes it idempotent.
            text: The policies.
            replaces: The version in force that they were written from.

        Raises:
            InvalidArgument: If they are wrong; those in force stay.
            FailedPrecondition: If others are in force by now, the caller would lock itself
                out, or consent is missing.
        """
        subject = f"policies/sha256:{hashlib.sha256(text.encode()).hexdigest()}"
        try:
            permit = await self._access.authorise(
                caller, Action.POLICY_MANAGE, fields.ALL_APPS, subject=subject
            )
        except FailedPrecondition:
            # Before others consent to them, whether they are right at all.
            await self._compile(text)
            raise
        compiled = await self._compile(text)
        _keep_way_back(compiled, permit.caller)

        def act(tx: Transaction) -> Callable[[Sealed], object]:
            permit.confirm(tx)
            current = tx.policies.get()
            version = current.version if current else 0
            if version != replaces:
                raise FailedPrecondition(
                    f"policies/{version} are in force, not policies/{replaces}; look at them first",
                    reason="POLICY_CHANGED",
                )
            record = PolicyRecord(version + 1, text, caller.principal, self._clock())
            tx.policies.add(record)
            tx.record(
                {
                    "act": "policy.apply",
                    "principal": caller.principal,
                    "policies": f"policies/{record.version}",
                    "sha256": hashlib.sha256(text.encode()).hexdigest(),
                }
            )
            return lambda _: record

        answer = await self._store.commit(act, request)
        self._access.forget()
        return answer

    async def get(self, caller: Caller, version: int) -> PolicyRecord:
        """Return a version, the one in force if it is 0. Raises NotFound."""
        await self._access.authorise(caller, Action.POLICY_READ, fields.ALL_APPS)
        found: PolicyRecord | None = await self._store.read(lambda v: v.policies.get(version))
        if found is None and version:
            raise NotFound(f"there is no policies/{version}", reason="POLICY_NOT_FOUND")
        return found or PolicyRecord(0, "", "", 0)

    async def ask(self, caller: Caller, text: str | None, cases: list[Case]) -> list[Explanation]:
        """Answer thought-up questions, by some policies or by those in force."""
        await self._access.authorise(caller, Action.POLICY_READ, fields.ALL_APPS)
        if not 1 <= len(cases) <= MAX_CASES:
            raise InvalidArgument("cases", f"must be 1 to {MAX_CASES:,}")
        for case in cases:
            _check(case)
        compiled = None if text is None else await self._compile(text)
        now = self._clock()

        def query(view: View) -> list[Explanation]:
            use = compiled or self._access.policies(view)
            return [_explain(view, use, case, now) for case in cases]

        found: list[Explanation] = await self._store.read(query)
        return found

    async def _compile(self, text: str) -> PolicySet:
        """Compile what a caller wrote: first where nothing else dies of it, one at a time."""
        if self._trying >= MAX_TRYING:
            raise Unavailable("many policies are being tried; try again", reason="OVERLOADED")
        self._trying += 1
        try:
            async with self._one:
                await asyncio.to_thread(self._try_out, text)
                # Beside the loop as well: a long text takes its time.
                return await asyncio.to_thread(self._policies.compile, text)
        finally:
            self._trying -= 1


def _explain(view: View, policies: PolicySet, case: Case, now: int) -> Explanation:
    real = view.grants.list(principal=case.caller.principal)
    grants = (
        *(g for g in real if not 0 < g.expires_at <= now),
        *(replace(g, id=f"case-{n}") for n, g in enumerate(case.caller.grants, 1)),
    )
    caller = replace(case.caller, grants=grants)
    about = tuple(g for g in grants if g.app in {case.query.app, fields.ALL_APPS})
    unmet = {g.id: g.mismatch(caller.attributes) for g in about}
    return Explanation(
        policies.decider(caller, keep=False).decide(case.query),
        about,
        {k: v for k, v in unmet.items() if v},
    )


def _check(case: Case) -> None:
    fields.principal(case.caller.principal)
    fields.text(case.query.channel, "channel", 100)
    for name, value in case.caller.attributes.items():
        if name not in ATTRIBUTES:
            raise InvalidArgument("attributes", f"must be some of {', '.join(ATTRIBUTES)}")
        fields.text(value, "attributes", 512, least=1)


def _keep_way_back(compiled: PolicySet, caller: Caller) -> None:
    """Refuse policies under which who applies them could not apply others."""
    again = Query(Action.POLICY_MANAGE, fields.ALL_APPS, approvals=10)
    if not compiled.decider(caller).decide(again).allowed:
        raise FailedPrecondition(
            "under these policies you could not change them again; allow policy.manage",
            reason="LOCKED_OUT",
        )
