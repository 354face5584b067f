"""What unit tests share."""

import pytest

from tests.simulator import World


@pytest.fixture
def world(tmp_path):
    """All services in one process, over a database of their own."""
    made = World(tmp_path)
    yield made
    made.close()
