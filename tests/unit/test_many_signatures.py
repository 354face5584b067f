"""Statements that many versions of their keys sign: each of them verifies the release alone."""

import pytest
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import load_public_key
from privyseal.verify.receipt import receipt_parts, verify_receipt
from privyseald.model.native import NativeVersion
from privyseald.model.schemes import KeyPlace, Scheme

from tests.simulator import APP, World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, scheme=Scheme.STATEMENT_V1, plugin="statement")
    second = made.keys.create_key(
        *(made.olivia, made.request()),
        app=APP,
        key_id="",
        scheme=Scheme.STATEMENT_ML_DSA_V1,
        algorithm=None,
        place=KeyPlace(),
    )
    made.run(second)
    yield made
    made.close()


def test_each_version_of_the_statements_key_verifies_what_several_signed(world):
    world.register("android-1.0.0-1", 1)
    world.publish()
    world.start()
    world.register("android-2.0.0-2", 2)
    for _ in range(3):
        world.advance()
        # What was deployed before is signed again, and served meanwhile.
        native = NativeVersion("android", "2.0.0", "2")
        assert world.run(world.resolver.channel(APP, "production", native)).release is not None
    version = world.publish()
    record = world.view(lambda view: view.releases.signed(APP, version=version))
    names = [s.key_version for s in receipt_parts(record.receipt)[1]]
    assert len(names) == 3, names
    for number in (1, 2):
        key = load_public_key(world.version(number).public_key)
        verify_receipt(record.receipt, log=world.verifier, statement_key=key)
    stranger = load_public_key(world.standby().public_key)
    with pytest.raises(VerificationError, match="another statement key"):
        verify_receipt(record.receipt, log=world.verifier, statement_key=stranger)
