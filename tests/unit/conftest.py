"""What unit tests share."""

import pytest

from tests.simulator import World


@pytest.fixture
def world(tmp_path):
    """All services in one process, over a database of their own."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def keys_of_before():
    """RSA keys take long to make: rows share a few of them."""
    from privyseald.keyholder import keystore

    made, real = [], keystore._new_private_key
    given = []

    def new(algorithm):
        if not algorithm.rsa_bits:
            return real(algorithm)
        if len(given) >= len(made):
            made.append(real(algorithm))
        given.append(1)
        return made[len(given) - 1]

    patch = pytest.MonkeyPatch()
    patch.setattr(keystore, "_new_private_key", new)
    yield given
    patch.undo()


@pytest.fixture
def anew(keys_of_before):
    keys_of_before.clear()
