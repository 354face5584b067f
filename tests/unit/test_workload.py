"""Identity tokens: whatever they hold, they are refused in words or mean one thing."""

import json
import time
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from privyseald.adapters.identity_oidc import OidcTokens
from privyseald.model.claims import check_claims
from privyseald.model.errors import TokenRefused
from privyseald.model.workload import ATTRIBUTES, Issuer, Provider, strict_object

from tests.ci_systems import SYSTEMS

NOW = 1_800_000_000
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


def issuer_of(name):
    system = SYSTEMS[name]
    return Issuer(
        name,
        Provider(system.provider),
        system.url,
        system.audience or "aud",
        organizations=frozenset(system.organizations),
        claims=system.extra.get("claims", {}),
    )


def claims_of(name):
    system = SYSTEMS[name]
    claims = system.claims(system.audience or "aud")
    if system.provider == "buildkite":
        claims |= {"organization_id": system.organizations[0], "pipeline_id": system.anchor}
    return {**claims, "iat": NOW, "nbf": NOW, "exp": NOW + 300}


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_each_provider_documents_is_understood(name):
    workload = check_claims(issuer_of(name), claims_of(name), NOW, "digest")
    assert workload.principal == SYSTEMS[name].principal
    assert set(workload.attributes) <= set(ATTRIBUTES)
    if name not in {"azure-devops", "kubernetes"}:
        assert workload.attributes["ref"] == "refs/heads/main"


@settings(max_examples=400)
@given(st.sampled_from(sorted(SYSTEMS)), st.data())
def test_any_value_in_any_claim_is_understood_or_refused(name, data):
    claims = claims_of(name)
    claim = data.draw(st.sampled_from(sorted(claims)))
    claims[claim] = data.draw(JSON)
    refused = None
    try:
        workload = check_claims(issuer_of(name), claims, NOW, "digest")
    except TokenRefused as error:
        refused = error
    if refused is not None:
        assert refused.reason.startswith("TOKEN_")
        assert len(refused.message) < 200
        return
    assert workload.principal.startswith(f"workload:{name}:")
    assert all(isinstance(v, str) and v for v in workload.attributes.values())


@given(st.text(max_size=100))
@example("a.b.c")
@example("e30.e30.")
@example("eyJhbGciOiJub25lIn0.e30.")
def test_any_text_is_refused_as_a_token(text):
    import asyncio

    with pytest.raises(TokenRefused):
        asyncio.run(OidcTokens([]).verify(text, NOW))


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_an_object_is_read_as_any_parser_reads_it(value):
    assert strict_object(json.dumps(value).encode(), "x") == value


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 1}',
        '{"x": {"a": 1, "a": 2}}',
        '{"x": [{"a": 1, "a": 2}]}',
        '{"a": 1, "\\u0061": 2}',
        "[]",
        '{"a": NaN}',
        '{"a": 1} {"a": 1}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "\xff",
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(text):
    with pytest.raises(TokenRefused):
        strict_object(text.encode("latin-1"), "x")


def test_times_are_checked_with_their_leeway():
    issuer = issuer_of("github")

    def at(now, **changed):
        return check_claims(issuer, {**claims_of("github"), **changed}, now, "d")

    assert at(NOW + 329)
    assert at(NOW, nbf=NOW + 30)
    assert at(NOW + 630, exp=NOW + 7200)
    for now, changed, reason in (
        (NOW + 330, {}, "TOKEN_EXPIRED"),
        (NOW, {"nbf": NOW + 31}, "TOKEN_NOT_YET_VALID"),
        (NOW + 631, {"exp": NOW + 7200}, "TOKEN_AGE"),
        (NOW, {"exp": NOW + 7201}, "TOKEN_LIFETIME"),
        (NOW, {"exp": True}, "TOKEN_CLAIM"),
        (NOW, {"exp": 1 << 60}, "TOKEN_CLAIM"),
        (NOW, {"iat": -5}, "TOKEN_CLAIM"),
    ):
        with pytest.raises(TokenRefused) as error:
            at(now, **changed)
        assert error.value.reason == reason
    # It is remembered as long as it could be used.
    assert at(NOW).expires_at == NOW + 300 + 30


def test_a_token_without_a_name_of_its_own_is_known_by_its_digest():
    claims = claims_of("circleci")
    assert "jti" not in claims
    assert check_claims(issuer_of("circleci"), claims, NOW, "digest").token_id == "digest"


def test_an_issuer_for_everybody_needs_organizations():
    assert issuer_of("github").needs_organizations
    assert issuer_of("buildkite").needs_organizations
    assert not issuer_of("github-enterprise").needs_organizations
    assert not replace(issuer_of("gitlab"), url="https://gitlab.corp.example").needs_organizations


def test_a_token_of_many_members_is_looked_through_once():
    members = ",".join(f'"claim{n}":1' for n in range(1000))
    text = f'{{{members},"claim999":1}}'.encode()
    start = time.perf_counter()
    for _ in range(20):
        with pytest.raises(TokenRefused, match="repeats a claim"):
            strict_object(text, "payload")
    assert time.perf_counter() - start < 0.2
