"""CI jobs sign with what their CI system vouches for, and with nothing stored."""

import json
import time
import uuid

import pytest
from privyseal.connection import Connection, Profile, content_of
from privyseal.errors import ClientError
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import signing_service_pb2 as pb

from tests.ci_systems import ORG, REPO, SYSTEMS, UUID
from tests.e2e.conftest import AUDIENCE, anonymous


def connect(daemon, token=""):
    ca = daemon.data / "tls/ca.pem"
    return Connection(Profile(daemon.tokens, ca, token=token or "none"))


def exchange(daemon, token, app, *digests):
    with connect(daemon) as to:
        request = access_pb.ExchangeTokenRequest(
            parent=f"apps/{app}",
            id_token=token,
            content_sha256s=[content_of(sign_request(app, digest)) for digest in digests],
        )
        return to.call(to.access.ExchangeToken, request)


def sign_request(app, digest, version=""):
    return pb.SignReleaseRequest(
        parent=f"apps/{app}",
        version=version or uuid.uuid4().hex,
        bundle_sha256=digest,
        bundle_length=1,
        manifest_sha256=b"m" * 32,
    )


def grant(daemon, app, name="github", *more, role="signer"):
    return daemon.ok(
        *("grant", "create", "--app-id", app, "--role", role),
        *("--principal", SYSTEMS[name].principal, *more),
    )["grant"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_job_of_each_ci_system_publishes(ci, issuer, job_app, www, tmp_path, name):
    for role in ("signer", "releaser"):
        grant(ci, job_app, name, role=role)
    job = anonymous(ci, **issuer.job(name, AUDIENCE, tmp_path))

    done = ci.run(
        *("publish", "--app-id", job_app, "--build-dir", www, "--storage", tmp_path / "store"),
        *("--channel", "production", "--receipt", tmp_path / "receipt.json", "--json"),
        **job,
    )

    assert done.code == 0, done.err
    said = next(line for line in done.err.splitlines() if line.startswith("identity: "))
    assert SYSTEMS[name].principal in said
    keys = ("--public-key", tmp_path / "statement.pem", "--log-key", ci.data / "log.vkey")
    receipt = ("--receipt", tmp_path / "receipt.json")
    bundle = json.loads(done.out)["artifactUrl"].removeprefix("file://")
    assert ci.ok("verify", bundle, *receipt, *keys)["status"] == "verified"
    about = [e for e in ci.entries() if job_app in json.dumps(e)]
    session = next(e for e in about if e["act"] == "session.create")
    signed = next(e for e in about if e["act"] == "release.sign")
    assert signed["principal"] == session["principal"] == SYSTEMS[name].principal
    assert signed["session"] == session["session"]
    assert session["workload"]["issuer"] == name


def test_a_session_is_worth_one_app_and_the_bundles_it_named(ci, issuer, job_app):
    grant(ci, job_app)
    token = issuer.token("github", AUDIENCE)
    made = exchange(ci, token, job_app, b"d" * 32)
    with connect(ci, made.session) as to:
        assert to.call(to.signing.SignRelease, sign_request(job_app, b"d" * 32)).receipt
        with pytest.raises(ClientError, match="the bundles that it named"):
            to.call(to.signing.SignRelease, sign_request(job_app, b"e" * 32))
        with pytest.raises(ClientError, match="this session is for"):
            to.call(to.signing.SignRelease, sign_request("another", b"d" * 32))
        # Nothing else hides behind the right bundle's digest: each of these is signed, too.
        for field, value in (
            ("manifest_sha256", b"x" * 32),
            ("bundle_blake2b", b"x" * 64),
            ("codepush_sha256", b"x" * 32),
            ("bundle_length", 2),
        ):
            other = sign_request(job_app, b"d" * 32)
            setattr(other, field, value)
            with pytest.raises(ClientError, match="the bundles that it named"):
                to.call(to.signing.SignRelease, other)
    refused = [e for e in ci.entries() if e.get("session") == made.session[4:16]]
    assert [e["reason"] for e in refused if e["act"] == "refusal"] == ["SESSION_BOUND"] * 6


CHANGES = {
    "wrong audience": ({"aud": "https://other.test"}, "TOKEN_AUDIENCE"),
    "list of audiences": ({"aud": [AUDIENCE, "https://other.test"]}, "TOKEN_AUDIENCE_LIST"),
    "list of one audience": ({"aud": [AUDIENCE]}, "TOKEN_AUDIENCE_LIST"),
    "no audience": ({"aud": None}, "TOKEN_AUDIENCE"),
    "expired": ({"exp": 1, "iat": 0.5}, "TOKEN_CLAIM"),
    "expired a minute ago": ({"exp": int(time.time()) - 60}, "TOKEN_EXPIRED"),
    "not yet valid": ({"nbf": int(time.time()) + 3600}, "TOKEN_NOT_YET_VALID"),
    "issued in the future": ({"iat": int(time.time()) + 3600}, "TOKEN_NOT_YET_VALID"),
    "ten-year lifetime": ({"exp": int(time.time()) + 315_360_000}, "TOKEN_LIFETIME"),
    "old": ({"iat": int(time.time()) - 3600, "exp": int(time.time()) + 3000}, "TOKEN_AGE"),
    "no expiry": ({"exp": None}, "TOKEN_CLAIM"),
    "no nbf": ({"nbf": None}, "TOKEN_CLAIM"),
    "expiry as text": ({"exp": "4000000000"}, "TOKEN_CLAIM"),
    "jti not a text": ({"jti": 7}, "TOKEN_CLAIM"),
    "unknown issuer": ({"iss": "https://token.actions.evil.example"}, "TOKEN_ISSUER"),
    "issuer with a slash": ({"iss": SYSTEMS["github"].url + "/"}, "TOKEN_ISSUER"),
    "pull_request": ({"event_name": "pull_request"}, "TOKEN_EVENT"),
    "pull_request_target": ({"event_name": "pull_request_target"}, "TOKEN_EVENT"),
    "workflow_run": ({"event_name": "workflow_run"}, "TOKEN_EVENT"),
    "issue_comment": ({"event_name": "issue_comment"}, "TOKEN_EVENT"),
    "pull_request_review": ({"event_name": "pull_request_review"}, "TOKEN_EVENT"),
    "fork": ({"event_name": "fork"}, "TOKEN_EVENT"),
    "no event": ({"event_name": None}, "TOKEN_CLAIM"),
    "another organisation": ({"repository_owner_id": "666"}, "TOKEN_ORGANIZATION"),
    "id as number": ({"repository_id": 456789}, "TOKEN_CLAIM"),
    "renamed repository": ({"repository": "octo-org/new-name"}, "REPOSITORY_RENAMED"),
    "recycled name": ({"repository_id": "999999"}, "REPOSITORY_RECYCLED"),
    "another ref": ({"ref": "refs/heads/dev"}, "NO_GRANT"),
    "another repository": (
        {"repository_id": "31337", "repository": "octo-org/other"},
        "NO_GRANT",
    ),
}
HEADERS = {
    "unknown kid": ({"kid": "nobody's"}, "TOKEN_KEY_UNKNOWN"),
    "no kid": ({"kid": None}, "TOKEN_HEADER"),
    "jku": ({"jku": "https://evil.example/jwks"}, "TOKEN_HEADER"),
    "jwk": ({"jwk": {"kty": "RSA"}}, "TOKEN_HEADER"),
    "x5u": ({"x5u": "https://evil.example/cert"}, "TOKEN_HEADER"),
    "x5c": ({"x5c": ["MIIB"]}, "TOKEN_HEADER"),
    "crit": ({"crit": ["exp"]}, "TOKEN_HEADER"),
    "zip": ({"zip": "DEF"}, "TOKEN_HEADER"),
    "key of another algorithm": ({"kid": "ES256"}, "TOKEN_ALGORITHM"),
}


@pytest.fixture(scope="module")
def pinned(ci, issuer, tmp_path_factory):
    """An app with a grant that was made from a token: its name is pinned too."""
    folder = tmp_path_factory.mktemp("pinned")
    app = "pinned"
    ci.ok("app", "create", "--app-id", app, "--statement-key", folder / "statement.pem")
    (folder / "token").write_text(issuer.token("github", AUDIENCE))
    made = ci.ok(
        *("grant", "create", "--app-id", app, "--role", "signer"),
        *("--from-token", folder / "token", "--ref", "refs/heads/main"),
    )
    assert made["principal"] == f"workload:github:{REPO}"
    assert made["conditions"] == {"ref": "refs/heads/main", "repository": "octo-org/octo-repo"}
    return app


def refused(ci, app, token, reason):
    before = len(ci.entries())
    with pytest.raises(ClientError) as error:
        exchange(ci, token, app)
    new = [e for e in ci.entries()[before:] if e["act"] == "refusal"]
    assert [e["reason"] for e in new] == [reason], error.value
    assert new[0]["action"] == "session.create"
    assert 10 < len(str(error.value)) < 200
    assert token not in json.dumps(new)


@pytest.mark.parametrize("name", CHANGES)
def test_a_token_that_says_the_wrong_thing_is_refused(ci, issuer, pinned, name):
    changed, reason = CHANGES[name]
    refused(ci, pinned, issuer.token("github", AUDIENCE, **changed), reason)


@pytest.mark.parametrize("name", HEADERS)
def test_a_token_whose_header_misleads_is_refused(ci, issuer, pinned, name):
    header, reason = HEADERS[name]
    refused(ci, pinned, issuer.token("github", AUDIENCE, header=header), reason)


def test_what_is_signed_wrongly_is_refused(ci, issuer, pinned):
    import base64
    import hashlib
    import hmac

    from cryptography.hazmat.primitives import serialization

    def part(value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    good = issuer.token("github", AUDIENCE)
    claims = good.split(".")[1]
    refused(ci, pinned, f"{part({'alg': 'none', 'kid': 'RS256'})}.{claims}.", "TOKEN_ALGORITHM")

    # The public key as an HMAC secret: what a library that trusts the header falls for.
    head = f"{part({'alg': 'HS256', 'kid': 'RS256'})}.{claims}"
    public = issuer.keys["RS256"].public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    mac = hmac.new(pem, head.encode(), hashlib.sha256).digest()
    refused(ci, pinned, f"{head}.{part(mac)}", "TOKEN_ALGORITHM")

    signature = good.rpartition(".")[2]
    other = issuer.token("github", AUDIENCE).rpartition(".")[0]
    refused(ci, pinned, f"{other}.{signature}", "TOKEN_SIGNATURE")

    # A repeated claim, signed by the issuer's own key.
    text = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode()
    twice = text[:-1] + ', "sub": "repo:octo-org/octo-repo:ref:refs/heads/main"}'
    import jwt

    doubled = jwt.api_jws.encode(
        twice.encode(), issuer.keys["RS256"], "RS256", headers={"kid": "RS256"}
    )
    refused(ci, pinned, doubled, "TOKEN_DUPLICATE_MEMBER")
    refused(ci, pinned, "a.b", "TOKEN_MALFORMED")
    refused(ci, pinned, "A" * 20_000, "TOKEN_TOO_LONG")


@pytest.mark.parametrize(
    ("name", "claim", "value", "reason"),
    [
        ("circleci", "oidc.circleci.com/ssh-rerun", "false", "TOKEN_CLAIM"),
        ("circleci", "oidc.circleci.com/ssh-rerun", True, "TOKEN_CLAIM"),
        ("circleci", "oidc.circleci.com/ssh-rerun", None, "TOKEN_CLAIM"),
        ("gitlab", "ref_protected", True, "TOKEN_CLAIM"),
        ("gitlab", "environment_protected", "True", "TOKEN_CLAIM"),
        ("gitlab", "pipeline_source", "merge_request_event", "TOKEN_EVENT"),
        ("gitlab", "namespace_id", "73", "TOKEN_ORGANIZATION"),
        ("buildkite", "organization_id", "b" * 36, "TOKEN_ORGANIZATION"),
        ("buildkite", "pipeline_id", None, "TOKEN_CLAIM"),
        ("kubernetes", "aud", [AUDIENCE, "https://other.test"], "TOKEN_AUDIENCE_LIST"),
        ("azure-devops", "aud", AUDIENCE, "TOKEN_AUDIENCE"),
        ("bitbucket", "repositoryUuid", None, "TOKEN_CLAIM"),
    ],
)
def test_claims_are_compared_as_their_provider_sends_them(
    ci, issuer, job_app, name, claim, value, reason
):
    grant(ci, job_app, name)
    refused(ci, job_app, issuer.token(name, AUDIENCE, **{claim: value}), reason)


def test_another_issuers_key_does_not_count(ci, issuer, pinned):
    # GitLab's token, signed by a key GitLab has, claiming to be GitHub's: one set of keys each.
    token = issuer.token(
        "gitlab", AUDIENCE, header={"kid": "gitlab-only"}, iss="https://gitlab.com"
    )
    refused(ci, pinned, token, "TOKEN_KEY_UNKNOWN")


def test_a_grant_by_id_alone_survives_a_rename(ci, issuer, job_app):
    grant(ci, job_app)
    renamed = issuer.token("github", AUDIENCE, repository="octo-org/new-name")
    assert exchange(ci, renamed, job_app).attributes["repository"] == "octo-org/new-name"


def test_conditions_narrow_a_grant(ci, issuer, job_app):
    grant(ci, job_app, "github", "--ref", "refs/heads/main", "--runner", "hosted")
    assert exchange(ci, issuer.token("github", AUDIENCE), job_app).principal
    own = issuer.token("github", AUDIENCE, runner_environment="self-hosted")
    with pytest.raises(ClientError, match="is for its runner"):
        exchange(ci, own, job_app)


def test_the_client_says_what_a_job_lacks(ci, job_app):
    listing = ("live-update", "list-channels", "--app-id", job_app)
    told = {
        "GITHUB_ACTIONS": "id-token: write",
        "GITLAB_CI": "id_tokens:",
        "BITBUCKET_BUILD_NUMBER": "oidc: true",
        "TF_BUILD": "SYSTEM_ACCESSTOKEN",
    }
    for variable, remedy in told.items():
        done = ci.run(*listing, **anonymous(ci, **{variable: "true"}))
        assert done.code == 1
        assert remedy in done.err


def test_the_doctor_names_the_identity(ci, issuer, job_app, tmp_path):
    grant(ci, job_app)
    job = anonymous(ci, **issuer.job("github", AUDIENCE, tmp_path))
    done = ci.run("doctor", "--app-id", job_app, "--json", **job)
    checks = {c["check"]: c for c in json.loads(done.out)["checks"]}
    assert "GitHub Actions" in checks["credential"]["detail"]
    assert checks["principal"]["detail"] == f"workload:github:{REPO}"


def test_settings_that_trust_everybody_are_refused(ci, issuer, tmp_path):
    wrong = {
        'name = "github"\nprovider = "github"': "list the ids of your organizations",
        'name = "b"\nprovider = "buildkite"': "list the ids of your organizations",
        'name = "x"\nprovider = "oidc"': "needs its url",
        'name = "x"\nprovider = "oidc"\nurl = "http://x"': "needs its url",
        'name = "x"\nprovider = "oidc"\nurl = "https://x"\nclaims = { age = "age" }': "unknown age",
    }
    from privyseald.config import load

    for text, told in wrong.items():
        (tmp_path / "privyseald.toml").write_text(f"[[issuers]]\n{text}\n")
        with pytest.raises(ValueError, match=told):
            load(tmp_path)


def test_ids_of_github_are_what_the_table_says():
    assert SYSTEMS["github"].organizations == (ORG,)
    assert len(UUID) == 36
