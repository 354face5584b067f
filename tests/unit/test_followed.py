"""What the gateway knows of the log is what a checkpoint covers, also while it reads on."""

import sqlite3

import pytest
from privyseal.verify.canonical import canonical
from privyseal.verify.errors import VerificationError
from privyseal.verify.merkle import leaf_hash, root_of
from privyseal.verify.note import Checkpoint
from privyseald.gateway.follow import Followed, Follower

from tests.in_process import ORIGIN, sign_checkpoint

pytestmark = pytest.mark.usefixtures("anew")


def test_what_was_handed_out_does_not_change(world):
    world.publish()
    follower = Follower(world.store, world.verifier, world.kept)
    before = world.run(follower.state())
    held = (dict(before.channels), dict(before.releases))
    world.publish()
    after = world.run(follower.state())
    assert (before.channels, before.releases) == held
    assert len(after.releases) == len(before.releases) + 1


def test_leaves_are_not_known_before_the_root_is_compared(world, monkeypatch):
    world.publish()
    follower = Follower(world.store, world.verifier, world.kept)
    before = world.run(follower.state())
    world.publish()
    seen = []
    check = Follower._check

    def look(self, head):
        # All leaves are read here, and none of them is verified.
        seen.append(self._state is before and len(before.releases) == 1)
        check(self, head)

    monkeypatch.setattr(Follower, "_check", look)
    after = world.run(follower.state())
    assert seen == [True]
    assert len(after.releases) == 2


def test_leaves_that_do_not_make_the_root_are_never_known(world, monkeypatch):
    world.publish()
    follower = Follower(world.store, world.verifier, world.kept)
    before = world.run(follower.state())
    world.publish()
    monkeypatch.setattr("privyseald.gateway.follow.leaf_hash", lambda leaf: leaf_hash(leaf + b"x"))
    with pytest.raises(VerificationError, match="do not make the root"):
        world.run(follower.state())
    monkeypatch.undo()
    assert len(before.releases) == 1
    assert len(world.run(follower.state()).releases) == 2


def test_a_log_of_the_same_length_with_another_root_is_noticed(world):
    """The log's key signed both: whoever has it shows some people another log."""
    world.publish()
    follower = Follower(world.store, world.verifier, world.kept)
    world.run(follower.state())
    size = world.view(lambda view: view.log.head().size)
    other = sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)))
    with sqlite3.connect(world.folder / "world.db") as database:
        database.execute("UPDATE log_head SET note = ?", (other,))
    with pytest.raises(VerificationError, match="another root than it had"):
        world.run(follower.state())


@pytest.mark.parametrize(
    ("more", "change", "says"),
    [
        (0, b"", ""),
        (-3, b"", ""),
        (0, b"x" * 32, "not the one of its last checkpoint"),
        (-3, b"x" * 32, "not the one of its last checkpoint"),
        (1, b"", "shorter than its last known checkpoint"),
    ],
)
def test_the_log_extends_the_checkpoint_that_is_kept_outside(
    world, monkeypatch, more, change, says
):
    world.publish()
    leaves = [leaf for _, leaf, _ in world.view(lambda view: view.log.leaves(0, 1000))]
    size = len(leaves) + more
    root = change or root_of([leaf_hash(leaf) for leaf in leaves[:size]])
    monkeypatch.setattr(world.kept, "read", lambda: Checkpoint(ORIGIN, size, root))
    follower = Follower(world.store, world.verifier, world.kept)
    if not says:
        assert world.run(follower.state()).releases
        return
    for _ in range(2):
        with pytest.raises(VerificationError, match=says):
            world.run(follower.state())


def test_no_app_takes_the_place_of_anothers_artifact():
    def registered(app, url):
        act = {
            "act": "release.register",
            "release": f"apps/{app}/releases/1",
            "version": "1",
            "url": url,
            "type": "zip",
            "statementSha256": "",
        }
        return canonical(act)

    followed = Followed()
    for app, url in (
        ("a", "https://updates.example/artifacts/a/one.zip"),
        ("b", "https://updates.example/artifacts/a/one.zip"),
        ("b", "https://updates.example/artifacts/%61/one.zip"),
        ("b", "https://updates.example/artifacts/b/../a/one.zip"),
        ("c", "https://cdn.example/c/one.zip"),
    ):
        followed.apply(registered(app, url))
    assert followed.served["a/one.zip"] == ("apps/a/releases/1",)
    assert set(followed.served) == {"a/one.zip", "b/../a/one.zip"}
