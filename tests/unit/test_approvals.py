"""Approvals as a state machine, against rules that are written down a second time."""

import dataclasses

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from privyseald.model.approvals import Approval, approve, reject, requested, use
from privyseald.model.errors import DomainError, InvalidArgument
from privyseald.model.policy import Action

PEOPLE = ["certificate:" + name for name in ("alice", "bob", "carol", "dave", "erin")]


GLASS = {
    "action": Action.BREAK_GLASS,
    "subject": "",
    "role": "admin",
    "beneficiary": PEOPLE[0],
}


def request(**changed):
    values = {
        "id": "1",
        "action": Action.KEY_DESTROY,
        "app": "a",
        "subject": "s",
        "requester": PEOPLE[0],
        "beneficiary": PEOPLE[1],
        "reason": "r",
        "needed": 2,
        "uses": 1,
        "seconds": 600,
        "created_at": 0,
        "expires_at": 600,
    }
    return Approval(**{**values, **changed})


class Machine(RuleBasedStateMachine):
    @initialize(needed=st.integers(1, 4), uses=st.integers(1, 3))
    def begin(self, needed, uses):
        window = uses > 1
        self.record = requested(
            request(
                needed=needed,
                uses=uses,
                action=Action.RELEASE_SIGN if window else Action.KEY_DESTROY,
                subject="" if window else "s",
                beneficiary="" if window else PEOPLE[1],
            )
        )
        self.now, self.consents, self.used, self.refused = 0, set(), 0, False

    def allowed(self):
        return not self.refused and self.now < 600 and self.used < self.record.uses

    def attempt(self, expected, change):
        try:
            self.record = change()
        except DomainError:
            assert not expected
            return False
        assert expected
        return True

    @rule(person=st.sampled_from(PEOPLE))
    def consent(self, person):
        own = person in {self.record.requester, self.record.beneficiary}
        open_ = self.allowed() and len(self.consents) < self.record.needed
        expected = open_ and not own and person not in self.consents
        if self.attempt(expected, lambda: approve(self.record, person, self.now)):
            self.consents.add(person)

    @rule()
    def use(self):
        expected = self.allowed() and len(self.consents) >= self.record.needed
        if self.attempt(expected, lambda: use(self.record, self.now)):
            self.used += 1

    @rule(person=st.sampled_from(PEOPLE))
    def refuse(self, person):
        if self.attempt(self.allowed(), lambda: reject(self.record, person, self.now)):
            self.refused = True

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def nobody_counts_twice_nor_for_themselves(self):
        approvers = self.record.approvers
        assert len(set(approvers)) == len(approvers) <= self.record.needed
        assert self.record.requester not in approvers
        assert self.record.used <= self.record.uses


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=30)
TestApprovals = Machine.TestCase


@pytest.mark.parametrize(
    "changed",
    [
        {"action": Action.RELEASE_READ},
        {"seconds": 59},
        {"seconds": 8 * 86_400},
        {"needed": 0},
        {"needed": 11},
        {"uses": 2},
        {"uses": 0},
        {"subject": ""},
        {"role": "admin"},
        {"ref": "refs/heads/main"},
        {"action": Action.RELEASE_SIGN},
        {"action": Action.RELEASE_SIGN, "subject": "", "uses": 1001},
        {**GLASS, "role": "approver"},
        {**GLASS, "role": ""},
        {**GLASS, "seconds": 5 * 3600},
        {**GLASS, "beneficiary": PEOPLE[1]},
    ],
)
def test_requests_that_make_no_sense_are_refused(changed):
    with pytest.raises(InvalidArgument):
        requested(request(**changed))


def test_an_emergency_is_for_who_asks():
    assert requested(request(**GLASS)).beneficiary == PEOPLE[0]


def test_an_approval_serves_one_act_and_a_window_its_ref():
    act = request()
    who = PEOPLE[1]
    assert act.serves(who, {}, Action.KEY_DESTROY, "a", "s")
    assert not act.serves(PEOPLE[0], {}, Action.KEY_DESTROY, "a", "s")
    assert not act.serves(who, {}, Action.KEY_DESTROY, "a", "t")
    assert not act.serves(who, {}, Action.KEY_DESTROY, "b", "s")
    assert not act.serves(who, {}, Action.KEY_IMPORT, "a", "s")
    window = request(action=Action.RELEASE_SIGN, subject="", beneficiary="", ref="r", workflow="w")
    both = {"ref": "r", "workflow": "w"}
    given = dataclasses.replace(window, approvers=("workload:x:2",))
    assert not given.serves("workload:x:2", both, Action.RELEASE_SIGN, "a", ""), "who consented"
    sign = (Action.RELEASE_SIGN, "a", "")
    assert window.serves("workload:x:1", {"ref": "r", "workflow": "w"}, *sign)
    assert not window.serves("workload:x:1", {"ref": "r"}, *sign)
    assert not window.serves("workload:x:1", {"workflow": "w", "ref": "q"}, *sign)
