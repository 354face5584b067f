"""A request that is repeated gets the first answer, and nothing is made or done twice."""

import pytest
from privyseald.model.errors import AlreadyExists
from privyseald.model.schemes import KeyPlace, Scheme

from tests.simulator import APP, World

OLD, NEW = "android-1.0.0-10", "android-2.0.0-20"


def create_app(world):
    return world.keys.create_app(
        *(world.olivia, world.request()),
        app="other",
        display_name="",
        algorithm=None,
        place=KeyPlace(),
    )


def create_key(world):
    return world.keys.create_key(
        *(world.olivia, world.request()),
        app=APP,
        key_id="",
        scheme=Scheme.MINISIGN,
        algorithm=None,
        place=KeyPlace(),
    )


def versions(verb, **more):
    return lambda world: getattr(world.versions, verb)(
        world.olivia, world.request(), (APP, world.key, 2), reason="test", **more
    )


def create_standby(world):
    return world.versions.create(
        *(world.olivia, world.request()),
        app=APP,
        key_id=world.key,
        algorithm=None,
        place=KeyPlace(),
    )


def new_build(world):
    world.register(OLD, 1, 2)
    world.register(NEW, 2)


ACTS = {
    "an app is created": (create_app, ()),
    "a key is created": (create_key, ()),
    "a standby is created": (create_standby, ()),
    "a version is deactivated": (
        versions("deactivate", force=False),
        (World.start, lambda world: world.register(NEW, 1, 2), World.advance),
    ),
    "a destruction is scheduled": (
        versions("destroy", delay=0, force=False),
        (World.standby,),
    ),
    "a rotation is started": (World.start, ()),
    "an emergency is started": (
        lambda world: world.start(emergency=True),
        (World.standby, World.publish),
    ),
    "a rotation goes on": (World.advance, (World.start, new_build)),
    "a rotation promotes": (
        World.advance,
        (World.publish, World.start, new_build, World.advance, World.advance),
    ),
    "a rotation is aborted": (World.abort, (World.start,)),
    "a build ends": (lambda world: world.end(OLD), (lambda world: world.register(OLD, 1),)),
    "a release is deployed": (lambda world: world.deploy(1), (World.publish,)),
}


@pytest.mark.parametrize("case", ACTS)
def test_what_is_asked_twice_is_done_once(world, case, monkeypatch):
    act, before = ACTS[case]
    for step in before:
        step(world)

    def done():
        made = act(world)
        return world.run(made) if hasattr(made, "send") else made

    # Names that are looked up while the request is made stay those of the first time.
    current = world.rotation()
    monkeypatch.setattr(world, "rotation", lambda: current)
    request = world.request()
    monkeypatch.setattr(world, "request", lambda *_: request)
    done()
    leaves, made = len(world.leaves()), world.keyholder.generated
    done()
    assert len(world.leaves()) == leaves
    assert world.keyholder.generated == made


def test_a_request_id_is_not_taken_for_another_request(world, monkeypatch):
    request = world.request()
    monkeypatch.setattr(world, "request", lambda *_: request)
    world.run(create_key(world))
    other = type(request)(request.principal, request.id, b"other", request.encode)
    monkeypatch.setattr(world, "request", lambda *_: other)
    with pytest.raises(AlreadyExists, match="request_id"):
        world.run(create_standby(world))
