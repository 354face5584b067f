"""Where a job's identity token comes from, as an attacker on the way would have it."""

import pytest
from privyseal import identity
from privyseal.errors import ClientError

from tests.ci_systems import Issuer


@pytest.fixture
def issuer(tmp_path):
    running = Issuer(tmp_path / "issuer")
    yield running
    running.close()


def test_the_jobs_credential_is_not_carried_elsewhere(issuer, tmp_path, monkeypatch):
    job = issuer.job("github", "https://x", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", job["SSL_CERT_FILE"])
    assert identity.find(job).fetch("https://x").count(".") == 2
    url = job["ACTIONS_ID_TOKEN_REQUEST_URL"].replace("/token", "/elsewhere")
    redirected = identity.find({**job, "ACTIONS_ID_TOKEN_REQUEST_URL": url})
    with pytest.raises(ClientError, match="did not give an identity token"):
        redirected.fetch("https://x")
