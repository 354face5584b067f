"""Any sequence of acts on a key's versions and rotations, against a second model of the rules.

The model here was written from the documents (docs/rotation.md), and shares no table and no
function with the daemon's own. It knows what must be allowed and what must be refused, and what
the state is afterwards; after each step the two are compared, and every device that the model
says is served verifies a fresh release.
"""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from privyseald.model.errors import DomainError
from privyseald.model.schemes import Scheme

from tests.simulator import World

WAITING, ACTIVE, SUSPENDED = "pre-activation", "active", "suspended"
RETIRED, COMPROMISED, SCHEDULED, GONE = (
    *("deactivated", "compromised", "destroy-scheduled"),
    "destroyed",
)
MOST_VERSIONS, MOST_BUILDS = 5, 6


class Model:
    """What is allowed, in plain words of Python."""

    def __init__(self):
        self.state = {1: ACTIVE}
        self.before = {}
        self.primary = 1
        self.given_up = False
        self.builds = {}  # name -> versions embedded
        self.ended = set()
        self.rotation = None  # [kind, old, new, state] of what is under way or was last
        self.retiring = []  # promoted ones, which wait

    def live(self):
        return {n: t for n, t in self.builds.items() if n not in self.ended}

    def signs_for(self, trusts, without=()):
        able = [v for v in trusts if self.state[v] == ACTIVE and v not in without]
        if self.primary in able:
            return self.primary
        return max(able, default=None)

    def lost_without(self, version):
        """Builds it signs for and no other could, or that could hope for it alone."""
        hopes = (ACTIVE, SUSPENDED, WAITING)
        if self.state[version] not in hopes:
            return set()
        return {
            name
            for name, trusts in self.live().items()
            if version in trusts
            and (
                (self.signs_for(trusts) and not self.signs_for(trusts, (version,)))
                or not any(self.state[v] in hopes for v in trusts if v != version)
            )
        }

    def under_way(self):
        return self.rotation is not None and self.rotation[3] in (
            "prepared",
            "distributing",
            "overlap",
        )

    def newest_per_platform(self):
        newest = {}
        for name, trusts in self.live().items():
            platform, _, code = name.split("-")
            if platform not in newest or int(code) > newest[platform][0]:
                newest[platform] = (int(code), trusts)
        return [trusts for _, trusts in newest.values()]

    def may_register(self, trusts):
        done = [r for r in [self.rotation, *self.retiring] if r and r[3] in ("overlap", "promoted")]
        hopes = any(self.state[v] in (ACTIVE, SUSPENDED, WAITING) for v in trusts)
        return hopes and all(any(v >= r[2] for v in trusts) for r in done)


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name), scheme=Scheme.MINISIGN, plugin="minisign")
        self.world.publish()
        self.model = Model()
        self.code = 0

    def teardown(self):
        self.world.close()
        self.folder.cleanup()

    def attempt(self, allowed, act):
        """Do something that the model says is allowed or not; return whether it was."""
        try:
            act()
        except DomainError as error:
            assert not allowed, f"{error.reason}: {error.message}"  # noqa: PT017 - both ways
            return False
        assert allowed, "allowed, but to be refused"
        return True

    versions = st.integers(1, MOST_VERSIONS)

    @rule()
    def make_standby(self):
        if len(self.model.state) < MOST_VERSIONS:
            self.world.standby()
            self.model.state[len(self.model.state) + 1] = WAITING

    @rule(version=versions)
    def suspend(self, version):
        m = self.model
        act = lambda: self.world.change("suspend", version, reason="x")  # noqa: E731 - one act
        if self.attempt(m.state.get(version) == ACTIVE, act):
            m.state[version] = SUSPENDED

    @rule(version=versions)
    def resume(self, version):
        m = self.model
        act = lambda: self.world.change("resume", version, reason="x")  # noqa: E731 - one act
        if self.attempt(m.state.get(version) == SUSPENDED, act):
            m.state[version] = ACTIVE

    @rule(version=versions, force=st.booleans())
    def deactivate(self, version, force):
        m = self.model
        hopes = (WAITING, ACTIVE, SUSPENDED)
        fit = m.state.get(version) in hopes
        missed = fit and bool(m.lost_without(version))
        if version == m.primary:
            # The key is given up, if no other could follow.
            others = any(s in hopes for v, s in m.state.items() if v != version)
            missed = missed if fit else bool(m.live())
            fit = not m.given_up and not others
        allowed = fit and (force or not missed)

        def act():
            self.world.change("deactivate", version, reason="x", force=force)

        if self.attempt(allowed, act):
            m.state[version] = RETIRED if m.state[version] in hopes else m.state[version]
            m.given_up = m.given_up or version == m.primary

    @rule(version=versions)
    def compromise(self, version):
        m = self.model
        allowed = version in m.state and m.state[version] != GONE
        act = lambda: self.world.change("compromise", version, since=0, evidence="x")  # noqa: E731 - one act
        if self.attempt(allowed, act):
            m.state[version] = COMPROMISED
            m.before.pop(version, None)

    @rule(version=versions, force=st.booleans(), now=st.booleans())
    def schedule(self, version, force, now):
        m = self.model
        state = m.state.get(version)
        fit = state in (WAITING, SUSPENDED, RETIRED, COMPROMISED)
        hopes = (ACTIVE, SUSPENDED, WAITING)
        depend = state in (WAITING, SUSPENDED, RETIRED) and any(
            version in trusts and not any(m.state[v] in hopes for v in trusts if v != version)
            for trusts in m.live().values()
        )
        delay = 0 if now else 1000

        def act():
            self.world.change("destroy", version, reason="x", delay=delay, force=force)

        if self.attempt(fit and (force or not depend), act):
            m.before[version], m.state[version] = state, SCHEDULED
            if now:
                self.world.sweep()
                m.state[version] = GONE
                m.before.pop(version)

    @rule(version=versions)
    def restore(self, version):
        m = self.model
        act = lambda: self.world.change("restore", version, reason="x")  # noqa: E731 - one act
        if self.attempt(m.state.get(version) == SCHEDULED, act):
            m.state[version] = m.before.pop(version)

    @rule()
    def time_passes(self):
        self.world.days(1)
        self.world.sweep()
        for version, state in self.model.state.items():
            if state == SCHEDULED:
                self.model.state[version] = GONE

    @rule(
        platform=st.sampled_from(["android", "ios"]),
        trusts=st.sets(versions, min_size=1, max_size=2),
    )
    def register(self, platform, trusts):
        m = self.model
        trusts = {v for v in trusts if v in m.state}
        if not trusts or len(m.live()) >= MOST_BUILDS:
            return
        self.code += 1
        build = f"{platform}-{self.code}.0.0-{self.code}"
        if self.attempt(m.may_register(trusts), lambda: self.world.register(build, *trusts)):
            m.builds[build] = trusts

    @precondition(lambda self: self.model.live())
    @rule(data=st.data())
    def end(self, data):
        build = data.draw(st.sampled_from(sorted(self.model.live())))
        self.world.end(build, force=True)
        self.model.ended.add(build)

    @rule()
    def start(self):
        m = self.model
        standby = [v for v, s in m.state.items() if s == WAITING and v > m.primary]
        new = max(standby, default=len(m.state) + 1)
        if new > MOST_VERSIONS:
            return
        if self.attempt(not m.under_way(), self.world.start):
            m.state.setdefault(new, WAITING)
            self.replace_rotation(["planned", m.primary, new, "prepared"])

    @rule()
    def start_emergency(self):
        m = self.model
        standby = [v for v, s in m.state.items() if s == WAITING and v > m.primary]
        new = max(standby, default=len(m.state) + 1)
        if m.under_way():
            going = m.rotation[2]
            if going != m.primary and m.state[going] in (WAITING, ACTIVE):
                new = going
        if new > MOST_VERSIONS:
            return
        allowed = m.state[m.primary] != GONE and not (
            m.under_way() and m.rotation[0] == "emergency"
        )
        if self.attempt(allowed, lambda: self.world.start(emergency=True)):
            old = m.primary
            m.state[old] = COMPROMISED
            m.before.pop(old, None)
            m.state[new] = ACTIVE
            m.primary, m.given_up = new, False
            # What is under way, or leads to what is given up, ends.
            if m.rotation and (m.under_way() or (m.rotation[2:] == [old, "promoted"])):
                m.rotation[3] = "aborted"
            m.retiring = [r for r in m.retiring if r[2] != old]
            self.replace_rotation(["emergency", old, new, "promoted"])

    def replace_rotation(self, made):
        m = self.model
        if m.rotation is not None and m.rotation[3] == "promoted":
            m.retiring.append(m.rotation)
        m.rotation = made

    @precondition(lambda self: self.model.under_way())
    @rule()
    def advance(self):
        m = self.model
        _, _, new, state = m.rotation
        fit = m.state[new] in (WAITING, ACTIVE)
        if state == "prepared":
            allowed = fit and any(new in t for t in m.live().values())
        elif state == "distributing":
            allowed = fit and all(new in t for t in m.newest_per_platform())
        else:
            allowed = fit and m.state[m.rotation[1]] != SUSPENDED
        if self.attempt(allowed, self.world.advance):
            following = {
                "prepared": "distributing",
                "distributing": "overlap",
                "overlap": "promoted",
            }
            m.rotation[3] = following[state]
            if m.rotation[3] == "distributing" and m.state[new] == WAITING:
                m.state[new] = ACTIVE
            if m.rotation[3] == "promoted":
                m.primary, m.given_up = new, False

    @precondition(lambda self: self.model.under_way())
    @rule()
    def abort(self):
        m = self.model
        new = m.rotation[2]
        keeps = bool(m.lost_without(new))
        self.world.abort()
        m.rotation[3] = "aborted"
        if not keeps and m.state[new] == ACTIVE:
            m.state[new] = RETIRED

    @precondition(lambda self: self.model.rotation and self.model.rotation[3] == "promoted")
    @rule(force=st.booleans())
    def retire(self, force):
        m = self.model
        kind, old, new, _ = m.rotation
        fit = m.state[new] in (WAITING, ACTIVE)
        if kind == "planned":
            blocked = bool(m.lost_without(old))
        else:
            blocked = any(old in t and not m.signs_for(t) for t in m.live().values())
        if self.attempt(fit and (force or not blocked), lambda: self.world.advance(force=force)):
            m.rotation[3] = "retired"
            if kind == "planned" and m.state[old] in (ACTIVE, SUSPENDED):
                m.state[old] = RETIRED

    @rule()
    def crash(self):
        self.world.crash()

    @rule()
    def release(self):
        m = self.model
        if not self.attempt(m.state[m.primary] == ACTIVE or m.given_up, self.world.publish):
            return
        for build, trusts in m.live().items():
            served = self.world.ask(build)
            signature = served.signature(str(self.world.scheme))
            signer = m.signs_for(trusts)
            if signer is None:
                assert signature is None, f"{build} is given what nobody active signed"
            else:
                number = int(signature.key_version.rsplit("/", 1)[1])
                assert number in trusts
                assert m.state[number] == ACTIVE

    @invariant()
    def the_same(self):
        record = self.world.key_record()
        assert {v.version: str(v.state) for v in record.versions} == self.model.state
        assert (record.primary, record.given_up) == (self.model.primary, self.model.given_up)
        current = self.world.rotation()
        if self.model.rotation is not None and self.model.under_way():
            assert [str(current.kind), current.old, current.new, str(current.state)] == (
                self.model.rotation
            )
        for version in record.versions:
            assert bool(version.blob) is (str(version.state) != GONE)


# 100,000 steps in the long form.
RUNS, STEPS = (int(x) for x in os.environ.get("PRIVYSEAL_MACHINE", "12x40").split("x"))
LONG = {"max_examples": 1000, "stateful_step_count": 100}
QUIET = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "phases": [Phase.generate],
}

TestLifecycle = Machine.TestCase
TestLifecycle.settings = settings(max_examples=RUNS, stateful_step_count=STEPS, **QUIET)


@pytest.mark.long
class TestManyLives(Machine.TestCase):
    settings = settings(**LONG, **QUIET)
