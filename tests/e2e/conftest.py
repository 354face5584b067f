"""A daemon that trusts imitated CI systems."""

import uuid

import pytest

from tests.ci_systems import Issuer
from tests.conftest import Daemon

AUDIENCE = "https://privyseal.test"


@pytest.fixture(scope="session")
def issuer(tmp_path_factory):
    running = Issuer(tmp_path_factory.mktemp("issuer") / "ca")
    yield running
    running.close()


@pytest.fixture(scope="module")
def ci(tmp_path_factory, issuer):
    """A daemon whose issuers are the imitated ones."""
    settings = f'audience = "{AUDIENCE}"\nprincipal_rate = 0\napp_rate = 0\n' + issuer.settings()
    running = Daemon(tmp_path_factory.mktemp("ci") / "data", settings)
    running.init()
    running.start()
    yield running
    if running.process.poll() is None:
        assert running.stop() == 0


@pytest.fixture
def job_app(ci, tmp_path):
    """An app with keys and a channel."""
    app = "app-" + uuid.uuid4().hex[:8]
    ci.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    ci.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def anonymous(daemon, **extra):
    """Return the environment of a CI job: it knows the daemon, and has no credential."""
    return {
        "PRIVYSEAL_PROFILE": str(daemon.empty_profile()),
        "PRIVYSEAL_SERVER": daemon.tokens,
        "PRIVYSEAL_CA": str(daemon.data / "tls/ca.pem"),
        "PRIVYSEAL_AUDIENCE": AUDIENCE,
        **extra,
    }
