"""An issuer's keys: bounded, fetched seldom, from that issuer alone."""

import asyncio
import gzip
import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from privyseald.adapters import jwks
from privyseald.adapters.jwks import COOL_DOWN, TTL, Jwks, JwksSource, parse
from privyseald.model.errors import Unavailable

from tests.ci_systems import Issuer


@pytest.fixture
def issuer(tmp_path):
    running = Issuer(tmp_path / "issuer")
    yield running
    running.close()


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def keys_of(issuer, clock, **more):
    source = JwksSource("https://issuer.test", f"{issuer.url}/x/jwks", ca_file=issuer.ca, **more)
    return Jwks(source, clock)


def test_ten_thousand_unknown_keys_cause_one_fetch(issuer):
    clock = Clock()
    keys = keys_of(issuer, clock)

    async def flood():
        return await asyncio.gather(*(keys.key(f"random-{n}") for n in range(10_000)))

    assert set(asyncio.run(flood())) == {None}
    assert issuer.fetches == 1
    clock.now += COOL_DOWN
    assert asyncio.run(keys.key("random-x")) is None
    assert issuer.fetches == 2


def test_known_keys_serve_while_the_issuer_is_down_up_to_a_limit(issuer):
    clock = Clock()
    keys = keys_of(issuer, clock, stale_seconds=10_000)
    assert asyncio.run(keys.key("RS256"))
    issuer.jwks_body = b"<html>Bad gateway</html>"
    clock.now += TTL + 1
    assert asyncio.run(keys.key("RS256"))
    assert issuer.fetches == 2
    clock.now += 10_000
    with pytest.raises(Unavailable, match="cannot be fetched"):
        asyncio.run(keys.key("RS256"))
    issuer.jwks_body = None
    clock.now += COOL_DOWN
    assert asyncio.run(keys.key("RS256"))


def test_a_key_that_was_removed_is_dropped_within_its_time(issuer):
    clock = Clock()
    keys = keys_of(issuer, clock)
    assert asyncio.run(keys.key("RS256"))
    issuer.jwks_body = b'{"keys": []}'
    clock.now += TTL + 1
    assert asyncio.run(keys.key("RS256")) is None


def test_a_kid_with_another_key_is_another_key(issuer):
    clock = Clock()
    keys = keys_of(issuer, clock)
    before = asyncio.run(keys.key("RS256")).key.public_numbers()
    issuer.keys["RS256"] = rsa.generate_private_key(65537, 2048)
    clock.now += TTL + 1
    assert asyncio.run(keys.key("RS256")).key.public_numbers() != before


def test_a_slow_issuer_does_not_hold_up_known_keys(issuer, monkeypatch):
    monkeypatch.setattr(jwks, "TIMEOUT", 0.5)
    clock = Clock()
    keys = keys_of(issuer, clock)
    assert asyncio.run(keys.key("RS256"))
    issuer.delay = 30
    clock.now += TTL + 1
    start = time.monotonic()
    assert asyncio.run(keys.key("RS256"))
    assert time.monotonic() - start < 2


def test_an_answer_is_bounded(issuer):
    issuer.jwks_body = json.dumps({"keys": [], "padding": "x" * 10_000_000}).encode()
    with pytest.raises(Unavailable):
        asyncio.run(keys_of(issuer, Clock()).key("RS256"))


def test_an_answer_is_not_unpacked(issuer):
    issuer.jwks_body = gzip.compress(json.dumps(issuer.jwks()).encode())
    with pytest.raises(Unavailable):
        asyncio.run(keys_of(issuer, Clock()).key("RS256"))
    assert issuer.fetches == 1


def test_an_answer_that_is_nested_deeply_is_no_key_set(issuer):
    issuer.jwks_body = b"[" * 200_000
    with pytest.raises(Unavailable):
        asyncio.run(keys_of(issuer, Clock()).key("RS256"))


def test_an_issuer_that_is_down_at_first_is_unavailable(tmp_path):
    keys = Jwks(JwksSource("https://x", "https://127.0.0.1:1/jwks"), Clock())
    with pytest.raises(Unavailable):
        asyncio.run(keys.key("a"))
    keys = Jwks(JwksSource("https://x", "http://127.0.0.1:1/jwks"), Clock())
    with pytest.raises(Unavailable):
        asyncio.run(keys.key("a"))


def test_a_file_serves_where_the_issuer_cannot_be_reached(issuer, tmp_path):
    file = Path(tmp_path / "keys.json")
    file.write_text(json.dumps(issuer.jwks()))
    assert asyncio.run(Jwks(JwksSource("https://x", file=file), Clock()).key("ES256"))


def public(bits=2048, **more):
    key = rsa.generate_private_key(65537, bits)
    return {**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": "k", **more}


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "kid": "k", "k": "AAAA"},
        {"kty": "RSA", "kid": "k"},
        {"kty": "EC", "crv": "P-384", "kid": "k"},
        "text",
        {},
    ],
)
def test_keys_that_cannot_verify_are_left_out(entry):
    assert parse(json.dumps({"keys": [entry, public(kid="good")]}).encode()).keys() == {"good"}


def test_weak_private_and_ambiguous_keys_are_left_out():
    key = rsa.generate_private_key(65537, 2048)
    private = {**json.loads(RSAAlgorithm.to_jwk(key)), "kid": "private"}
    private.pop("key_ops", None)
    listed = [
        public(1024, kid="weak"),
        public(kid="for-encryption", use="enc"),
        public(kid="for-signing", key_ops=["sign"]),
        public(kid="other-algorithm", alg="RS512"),
        private,
        public(kid="twice"),
        public(kid="twice"),
        public(kid="good"),
    ]
    assert parse(json.dumps({"keys": listed}).encode()).keys() == {"good"}
    with pytest.raises(ValueError):
        parse(json.dumps({"keys": [public()] * 65}).encode())


@pytest.mark.parametrize(
    ("document", "fine"),
    [
        ({"issuer": "ISSUER", "jwks_uri": "HOST/x/jwks"}, True),
        ({"issuer": "https://other", "jwks_uri": "HOST/x/jwks"}, False),
        ({"issuer": "ISSUER", "jwks_uri": "https://evil.example/jwks"}, False),
        ({"issuer": "ISSUER", "jwks_uri": "http://localhost/jwks"}, False),
        (["no object"], False),
    ],
)
def test_discovery_is_believed_only_about_its_own_host(issuer, document, fine, monkeypatch):
    text = json.dumps(document).replace("ISSUER", issuer.url + "/x").replace("HOST", issuer.url)
    real = jwks._get

    async def get(client, url):
        if url.endswith("/.well-known/openid-configuration"):
            return text.encode()
        return await real(client, url)

    monkeypatch.setattr(jwks, "_get", get)
    keys = Jwks(JwksSource(issuer.url + "/x", ca_file=issuer.ca), Clock())
    if fine:
        assert asyncio.run(keys.key("RS256"))
        return
    with pytest.raises(Unavailable):
        asyncio.run(keys.key("RS256"))
    assert issuer.fetches == 0
