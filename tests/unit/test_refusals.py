"""Refusals of strangers' tokens: each is in the log, whatever was in the token."""

import base64
import json

import pytest
from privyseald.adapters.identity_oidc import OidcTokens
from privyseald.model.errors import Unauthenticated
from privyseald.model.workload import Issuer, Provider
from privyseald.services.refusals import Refusals
from privyseald.services.workloads import Workloads

from tests.simulator import APP

ISSUER = Issuer("ci", Provider.GITHUB, "https://ci.example", "https://d", frozenset({"1"}))


class NoKeys:
    async def key(self, _kid):
        return None


def token(header: str) -> str:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(json.dumps({'iss': ISSUER.url}))}.AAAA"


@pytest.mark.parametrize(
    "header",
    [
        r'{"alg":"RS256","kid":"nobody"}',
        r'{"alg":"RS256","kid":"\ud800"}',
        r'{"alg":"\udfff","kid":"a"}',
        r'{"alg":["RS256"],"kid":"a"}',
        r'{"alg":"RS256","kid":"a","\ud800":1,"\ud800":2}',
        r'{"alg":"RS256","kid":"a\u0000\u202eb"}',
    ],
)
def test_what_a_stranger_writes_keeps_no_refusal_out_of_the_log(world, header):
    refusals = Refusals(world.store, world.clock)
    tokens = OidcTokens([(ISSUER, NoKeys())])
    service = Workloads(world.store, world.access, tokens, world.clock, refusals)
    with pytest.raises(Unauthenticated):
        world.run(service.exchange(token(header), APP, []))
    leaves = [json.loads(leaf) for _, leaf, _ in world.view(lambda v: v.log.leaves(0, 100))]
    assert leaves[-1]["action"] == "session.create"
    assert leaves[-1]["detail"].isprintable()
