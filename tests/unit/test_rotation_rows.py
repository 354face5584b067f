"""Rotations, a row for each case, readable as a sentence.

Each row says what is done, in words of `WORDS`, and what comes of it. `!` before a step means
that it is refused, with the reason that follows.
"""

import pytest
from privyseald.model.errors import DomainError

from tests.rotation_words import IOS_NEW, IOS_OLD, NEW, OLD, PLANNED, WORDS
from tests.simulator import APP

pytestmark = pytest.mark.usefixtures("anew")

ROWS = {
    "a planned rotation walks through, and the old build is served until it is ended": (
        [*PLANNED, "40 days", "end the old build", "advance"],
        {"state": "retired", 1: "deactivated", 2: "active", "primary": 2, NEW: True},
    ),
    "both builds are served while they overlap": (
        PLANNED,
        {"state": "promoted", 1: "active", 2: "active", "primary": 2, OLD: True, NEW: True},
    ),
    "without a build that trusts the new version nothing is distributed": (
        ["an old build", "start", "! advance NO_BUILD_TRUSTS"],
        {"state": "prepared", 2: "pre-activation"},
    ),
    "a platform whose newest build is behind holds the rotation": (
        [
            *("an old build", "an old build of iOS", "start", "a new build", "advance"),
            "! advance NEWEST_BUILD_BEHIND",
        ],
        {"state": "distributing", 2: "active"},
    ),
    "and lets it go when it has caught up": (
        [
            *("an old build", "an old build of iOS", "a release", "start", "a new build"),
            *("advance", "a new build of iOS", "advance", "advance"),
        ],
        {"state": "promoted", OLD: True, NEW: True, IOS_OLD: True, IOS_NEW: True},
    ),
    "what was deployed before is signed again for the new build": (
        ["an old build", "a release", "start", "a new build", "advance"],
        {OLD: True, NEW: True},
    ),
    "a new build that comes after the distribution began is served at once": (
        [
            *("an old build", "an old build of iOS", "a release", "start", "a new build"),
            *("advance", "a new build of iOS"),
        ],
        {IOS_NEW: True, IOS_OLD: True},
    ),
    "a standby that was shipped makes the rotation a promotion": (
        ["a standby", "a build with both", "a release", "start", "advance", "advance", "advance"],
        {"state": "promoted", "primary": 2, NEW: True},
    ),
    "and with the standby in every build the old version retires at once": (
        [
            *("a standby", "a build with both", "a release", "start"),
            *("advance", "advance", "advance", "advance"),
        ],
        {"state": "retired", 1: "deactivated", NEW: True},
    ),
    "after the overlap no build that depends on the old version is taken": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "advance"),
            "! a build of another key BUILD_BEHIND_ROTATION",
        ],
        {"state": "overlap"},
    ),
    "retiring with a live old build is refused": (
        [*PLANNED, "old devices ask", "! advance BUILDS_DEPEND"],
        {"state": "promoted", 1: "active", OLD: True},
    ),
    "and forced, with the stranded build in the log": (
        [*PLANNED, "old devices ask", "force", "a release"],
        {"state": "retired", 1: "deactivated", OLD: False, NEW: True, "forced": [OLD]},
    ),
    "an old build that still asks is not ended": (
        [*PLANNED, "old devices ask", "! end the old build NATIVE_BUILD_LIVES"],
        {"state": "promoted", OLD: True},
    ),
    "nor is the old version retired while an ended build asks": (
        [*PLANNED, "40 days", "end the old build", "old devices ask", "! advance ENDED_BUILDS_ASK"],
        {"state": "promoted", 1: "active"},
    ),
    "nor while versions that nobody registered make up a share": (
        [
            *PLANNED,
            "40 days",
            "end the old build",
            "strangers ask",
            "! advance UNREGISTERED_VERSIONS",
        ],
        {"state": "promoted", 1: "active"},
    ),
    "and they hold up the promotion, after which they get what the new version signs": (
        [*PLANNED[:-1], "strangers ask", "! advance UNREGISTERED_VERSIONS", "force"],
        {"state": "promoted", "primary": 2, "unregistered": 1},
    ),
    "suspending it first does not retire what a build depends on": (
        [*PLANNED, "suspend 1", "! deactivate 1 BUILDS_DEPEND", "! advance BUILDS_DEPEND"],
        {"state": "promoted", 1: "suspended"},
    ),
    "nor does a standby go that a build could hope for alone": (
        ["an old build", "a standby", "a new build", "! deactivate 2 BUILDS_DEPEND"],
        {2: "pre-activation"},
    ),
    "what check-ins tell against a retirement they tell against a deactivation": (
        [
            *(*PLANNED, "40 days", "end the old build", "old devices ask"),
            *("! advance ENDED_BUILDS_ASK", "! deactivate 1 ENDED_BUILDS_ASK"),
        ],
        {"state": "promoted", 1: "active"},
    ),
    "nor does starting back and aborting retire it": (
        [*PLANNED, "end the old build", "old devices ask", "! start back KEY_VERSION_STATE"],
        {"state": "promoted", 1: "active"},
    ),
    "nor aborting, while strangers ask, retire what was distributed": (
        [
            *("an old build", "start", "a new build", "advance"),
            *("end the new build", "strangers ask", "abort"),
        ],
        {"state": "aborted", 2: "active"},
    ),
    "nor suspending and destroying it": (
        [
            *(*PLANNED, "40 days", "end the old build", "old devices ask", "suspend 1"),
            "! destroy 1 ENDED_BUILDS_ASK",
        ],
        {"state": "promoted", 1: "suspended"},
    ),
    "a suspended primary promotes nothing, since it could not sign the record": (
        [*PLANNED[:-1], "suspend 1", "! advance OLD_VERSION_SUSPENDED", "resume 1", "advance"],
        {"state": "promoted", "primary": 2},
    ),
    "an emergency that is repeated gives up nothing more": (
        ["an old build", "start an emergency about 1", "! start an emergency about 1 NOT_PRIMARY"],
        {1: "compromised", 2: "active", "primary": 2},
    ),
    "nor does one about a version that is not the primary touch the primary": (
        [*PLANNED, "! start an emergency about 1 NOT_PRIMARY"],
        {1: "active", 2: "active", "primary": 2},
    ),
    "a rotation that was promoted ends when what it promoted is given up": (
        [*PLANNED, "start an emergency"],
        {"rotations": ["aborted", "promoted"], 1: "active", 2: "compromised", "primary": 3},
    ),
    "an unregistered build is served what the primary signed": (
        ["an old build", "a release"],
        {"unregistered": 1},
    ),
    "aborted when prepared, the new version goes": (
        ["an old build", "a release", "start", "abort"],
        {"state": "aborted", "primary": 1, OLD: True},
    ),
    "aborted while distributing with a build on the new version, it signs on for that": (
        ["an old build", "a release", "start", "a new build", "advance", "abort", "a release"],
        {"state": "aborted", 2: "active", "primary": 1, OLD: True, NEW: True},
    ),
    "aborted in the overlap likewise": (
        [*PLANNED[:-1], "abort", "a release"],
        {"state": "aborted", 2: "active", "primary": 1, OLD: True, NEW: True},
    ),
    "aborted with a build that trusts both, the new version is deactivated": (
        ["a standby", "a build with both", "a release", "start", "advance", "abort", "a release"],
        {"state": "aborted", 2: "deactivated", NEW: True},
    ),
    "what is promoted is not aborted": (
        [*PLANNED, "! abort ROTATION_STATE"],
        {"state": "promoted"},
    ),
    "after an abort another rotation can begin": (
        ["an old build", "start", "abort", "start"],
        {"state": "prepared"},
    ),
    "two rotations of one key do not run at once": (
        ["an old build", "start", "! start ROTATION_UNDER_WAY"],
        {"state": "prepared"},
    ),
    "of two officers at once one takes the step": (
        [
            *("an old build", "start", "a new build", "advance"),
            "! another officer advances from prepared ROTATION_STATE",
        ],
        {"state": "distributing"},
    ),
    "a crash when prepared loses nothing": (
        ["an old build", "a release", "start", "crash", "a new build", "advance"],
        {"state": "distributing", OLD: True, NEW: True},
    ),
    "a crash while distributing loses nothing": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "crash"),
            "advance",
        ],
        {"state": "overlap", OLD: True, NEW: True},
    ),
    "a crash in the overlap loses nothing": (
        [*PLANNED[:-1], "crash", "advance"],
        {"state": "promoted", "primary": 2, OLD: True, NEW: True},
    ),
    "a crash when promoted loses nothing": (
        [*PLANNED, "crash", "40 days", "end the old build", "advance"],
        {"state": "retired", 1: "deactivated", NEW: True},
    ),
    "an emergency stops the old version and serves builds with the standby": (
        ["a standby", "a build with both", "a release", "a day", "start an emergency", "a release"],
        {"state": "promoted", 1: "compromised", 2: "active", "primary": 2, NEW: True},
    ),
    "an emergency without a standby leaves the old builds to the store": (
        ["an old build", "a release", "a day", "start an emergency", "a release"],
        {"state": "promoted", 1: "compromised", 2: "active", OLD: False},
    ),
    "which a store build repairs": (
        [
            *("an old build", "a release", "a day", "start an emergency", "a release"),
            "a new build",
        ],
        {OLD: False, NEW: True},
    ),
    "and the emergency ends when the old builds are ended": (
        [
            *("an old build", "a release", "a day", "start an emergency", "a release"),
            *("a new build", "! advance BUILDS_WAIT_FOR_STORE", "40 days", "end the old build"),
            "advance",
        ],
        {"state": "retired", NEW: True},
    ),
    "a compromise in the overlap overtakes the planned rotation": (
        [*PLANNED[:-1], "a day", "start an emergency", "a release"],
        {"state": "promoted", 1: "compromised", 2: "active", "primary": 2, NEW: True, OLD: False},
    ),
    "a new version that is compromised stops its rotation": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "compromise 2"),
            *("! advance NEW_VERSION_UNFIT", "abort", "a release"),
        ],
        {"state": "aborted", 2: "compromised", "primary": 1, OLD: True, NEW: False},
    ),
    "with the new version suspended nothing goes on": (
        [
            *("an old build", "a release", "start", "a new build", "advance", "suspend 2"),
            "! advance NEW_VERSION_UNFIT",
        ],
        {"state": "distributing", 2: "suspended"},
    ),
    "with the primary suspended nothing is signed": (
        ["an old build", "a release", "suspend 1", "! a release KEY_NOT_ACTIVE"],
        {1: "suspended", OLD: True},
    ),
    "the primary is not retired but rotated away from": (
        ["an old build", "a standby", "! deactivate 1 KEY_VERSION_PRIMARY"],
        {1: "active"},
    ),
    "a key is not given up while a build trusts it": (
        ["an old build", "! deactivate 1 BUILDS_DEPEND"],
        {1: "active"},
    ),
    "a version that builds depend on is not retired outside of a rotation": (
        [*PLANNED, "old devices ask", "! deactivate 1 BUILDS_DEPEND"],
        {1: "active", OLD: True},
    ),
    "unless it is forced": (
        [*PLANNED, "force-deactivate 1", "a release"],
        {1: "deactivated", OLD: False, NEW: True},
    ),
    "a retired version is destroyed at its time": (
        [*PLANNED, "40 days", "end the old build", "advance", "destroy 1", "sweep"],
        {1: "destroyed", NEW: True},
    ),
    "one that live builds depend on is not": (
        [*PLANNED, "force", "! destroy 1 BUILDS_DEPEND"],
        {1: "deactivated"},
    ),
    "a clock that is set back turns no history around": (
        [*PLANNED[:-2], "the clock is set back", "advance", "advance"],
        {"state": "promoted", OLD: True, NEW: True, "ordered": True},
    ),
    "nor does it make a build look as if nobody had asked": (
        [
            *PLANNED,
            "old devices ask",
            "the clock is set back",
            "! end the old build NATIVE_BUILD_LIVES",
        ],
        {"state": "promoted"},
    ),
    "a build that verifies nothing stands in no way": (
        [
            *("a build that verifies nothing", "a standby", "a build with both", "a release"),
            *("start", "advance", "advance", "advance", "advance"),
        ],
        {"state": "retired"},
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rotation(world, name):
    steps, outcome = ROWS[name]
    for step in steps:
        if step.startswith("! "):
            what, _, reason = step[2:].rpartition(" ")
            with pytest.raises(DomainError) as error:
                WORDS[what](world)
            assert error.value.reason == reason, error.value.message
        else:
            WORDS[step](world)
    for what, wanted in outcome.items():
        check(world, what, wanted)
    check_log(world)


def check(world, what, wanted):
    if what == "state":
        assert str(world.rotation().state) == wanted
    elif what == "primary":
        assert world.key_record().primary == wanted
    elif isinstance(what, int):
        assert world.states()[what] == wanted
    elif what == "forced":
        forced = [leaf for leaf in world.leaves("rotation.advance") if leaf.get("forced")]
        assert [leaf["strands"] for leaf in forced] == [wanted]
        assert any(step.forced for step in world.rotation().history)
    elif what == "rotations":
        found = world.view(lambda view: view.rotations.list(APP, world.key))
        assert [str(r.state) for r in found] == wanted
    elif what == "unregistered":
        from privyseald.model.native import NativeVersion

        native = NativeVersion("android", "0.5.0", "5")
        served = world.run(world.resolver.channel(APP, "production", native))
        assert served.signature(str(world.scheme)).key_version.endswith(f"/{wanted}")
    elif what == "ordered":
        times = [step.at for step in world.rotation().history]
        assert times == sorted(times)
    else:
        assert world.updates(what) is wanted, world.status().standings


def check_log(world):
    """Every state that a version has is explained by the log's last word on it."""
    says = {
        "key.create": "active",
        "key.create-version": "pre-activation",
        "key.activate": "active",
        "key.suspend": "suspended",
        "key.resume": "active",
        "key.deactivate": "deactivated",
        "key.compromise": "compromised",
        "key.destroy-schedule": "destroy-scheduled",
        "key.destroy": "destroyed",
    }
    told = {}
    for leaf in world.leaves(*says):
        told[leaf["keyVersion"]] = says[leaf["act"]]
    for version in world.key_record().versions:
        assert told[version.name] == version.state
