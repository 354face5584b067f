"""A token of one's own."""

import pytest

from tests.softhsm import SoftHsm


@pytest.fixture
def token(tmp_path, monkeypatch):
    made = SoftHsm(tmp_path / "hsm")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made
