"""What can happen in a rotation, in words; see tests/unit/test_rotation_rows.py."""

from tests.simulator import APP

OLD, NEW = "android-1.0.0-10", "android-2.0.0-20"
IOS_OLD, IOS_NEW = "ios-1.0.0-10", "ios-2.0.0-20"


def strangers(world):
    from privyseald.model.native import NativeVersion

    for _ in range(20):
        native = NativeVersion("android", "0.5.0", "5")
        world.run(world.resolver.channel(APP, "production", native))
    world.flush()


WORDS = {
    "an old build": lambda w: w.register(OLD, 1),
    "an old build of iOS": lambda w: w.register(IOS_OLD, 1),
    "a new build": lambda w: w.register(NEW, 2),
    "a new build of iOS": lambda w: w.register(IOS_NEW, 2),
    "a build with both": lambda w: w.register(NEW, 1, 2),
    "a build of another key": lambda w: w.register("android-9.0.0-90", 1),
    "a build that verifies nothing": lambda w: w.register("android-0.1.0-1", plugin="ionic"),
    "a standby": lambda w: w.standby(),
    "a release": lambda w: w.publish(),
    "start": lambda w: w.start(),
    "start an emergency": lambda w: w.start(emergency=True),
    "start an emergency about 1": lambda w: w.start(emergency=True, old=1),
    "start back": lambda w: w.start(new=1),
    "end the new build": lambda w: w.end(NEW),
    "resume 1": lambda w: w.change("resume", 1, reason="test"),
    "advance": lambda w: w.advance(),
    "force": lambda w: w.advance(force=True),
    "abort": lambda w: w.abort(),
    "crash": lambda w: w.crash(),
    "end the old build": lambda w: w.end(OLD),
    "end the old build of iOS": lambda w: w.end(IOS_OLD),
    "old devices ask": lambda w: w.check_in(OLD, 20),
    "new devices ask": lambda w: w.check_in(NEW, 20),
    "strangers ask": strangers,
    "40 days": lambda w: w.days(40),
    "a day": lambda w: w.days(1),
    "the clock is set back": lambda w: w.days(-100),
    "suspend 1": lambda w: w.change("suspend", 1, reason="test"),
    "suspend 2": lambda w: w.change("suspend", 2, reason="test"),
    "deactivate 1": lambda w: w.change("deactivate", 1, reason="test", force=False),
    "deactivate 2": lambda w: w.change("deactivate", 2, reason="test", force=False),
    "force-deactivate 1": lambda w: w.change("deactivate", 1, reason="test", force=True),
    "compromise 1": lambda w: w.change("compromise", 1, since=0, evidence="test"),
    "compromise 2": lambda w: w.change("compromise", 2, since=0, evidence="test"),
    "destroy 1": lambda w: w.change("destroy", 1, reason="test", delay=0, force=False),
    "sweep": lambda w: w.sweep(),
    "another officer advances from prepared": lambda w: w.advance(who=w.oscar, expected="prepared"),
}
PLANNED = ["an old build", "a release", "start", "a new build", "advance", "advance", "advance"]
