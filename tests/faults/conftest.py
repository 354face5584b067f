"""A token, and a daemon that has it."""

import pytest

from tests.conftest import Daemon
from tests.softhsm import SoftHsm


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory):
    return SoftHsm(tmp_path_factory.mktemp("softhsm"))


@pytest.fixture
def vault(tmp_path, softhsm):
    """A daemon on the token, through a spy that writes down every call."""
    running = Daemon(tmp_path / "data")
    running.settings += "approvals = 0\n"
    running.settings += softhsm.settings()
    running.init()
    running.spied = softhsm.spied
    running.env |= softhsm.env
    running.start()
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0
