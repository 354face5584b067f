"""Policies that overflow their parser's stack: refused, and nothing dies of them."""

import asyncio
import resource
import threading

import pytest
from privyseald.adapters.policies_cedar import CedarPolicies
from privyseald.adapters.policies_trial import try_out
from privyseald.model.errors import InvalidArgument, Unavailable
from privyseald.model.policy import Action, Query
from privyseald.services.policies import MAX_TRYING, Case, TeamPolicies

from tests.conftest import Daemon
from tests.simulator import World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def of(condition):
    return f'@id("a") permit (principal, action, resource) when {{ {condition} }};'


DEEP = {
    "brackets": of("(" * 1000 + "true" + ")" * 1000),
    "brackets after a comment that a carriage return ends": of(
        "//\r" + "(" * 1000 + "true" + ")" * 1000
    ),
    "if": of("if true then " * 5000 + "true" + " else false" * 5000),
    "and": of(" && ".join(["true"] * 20_000)),
    "sum": of("1" + "+1" * 60_000 + " == 1"),
    "members": of("principal" + ".a" * 100_000 + " == 1"),
    "set": of("[" * 5000 + "1" + "]" * 5000 + " == 1"),
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_text_that_is_nested_too_deeply_is_refused(text):
    with pytest.raises(InvalidArgument, match="policies: ") as error:
        try_out(text, 1)
    assert len(error.value.message) < 600


def test_what_people_write_is_taken_and_what_is_wrong_with_it_told():
    nested = of("(" * 12 + "principal is Token" + ")" * 12)
    many = "\n".join(
        f'@id("{n}") forbid (principal is Workload, action, resource) unless '
        f'{{ principal has ref && principal.ref == "refs/heads/{n}" && context.approvals >= {n} }};'
        for n in range(300)
    )
    for text in ("", nested, many, of(" && ".join(["context.bound"] * 100))):
        try_out(text, 1)
    with pytest.raises(InvalidArgument, match=r"^policies: .*shoe"):
        try_out(of("principal.shoe == 1"), 1)


def test_the_daemon_outlives_them_and_asks_first_who_sends_them(tmp_path):
    daemon = Daemon(tmp_path / "data", "approvals = 0\n")
    daemon.init()
    daemon.start()
    try:
        file = tmp_path / "deep.cedar"
        file.write_text(DEEP["brackets"])
        stranger = daemon.token("-", "auditor")
        done = daemon.run("policy", "apply", str(file), **stranger)
        assert done.code == 1, done.err
        assert "policy.manage" in done.err
        officer = daemon.person("olivia", "admin", "security-officer")
        done = daemon.run("policy", "apply", str(file), **officer)
        assert done.code == 1, done.err
        assert "nested too deeply" in done.err
        assert daemon.process.poll() is None
        assert daemon.run("doctor").code == 0
    finally:
        assert daemon.stop() == 0


def test_texts_that_take_long_do_not_pile_up(world):
    release = threading.Event()
    policies = TeamPolicies(
        *(world.store, world.access, CedarPolicies(1), world.clock),
        try_out=lambda _: release.wait(10) and None,
    )

    async def scenario():
        case = Case(world.olivia, Query(Action.APP_READ, "-"))
        asked = [policies.ask(world.olivia, "", [case]) for _ in range(MAX_TRYING + 5)]
        tasks = [asyncio.ensure_future(one) for one in asked]
        await asyncio.sleep(0.5)
        release.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = world.run(scenario())
    assert sum(isinstance(one, Unavailable) for one in answers) == 5
    assert sum(isinstance(one, list) for one in answers) == MAX_TRYING


def test_what_the_trial_passes_the_daemon_reads_whatever_its_shell_limits(tmp_path):
    def passes(depth):
        try:
            try_out(of("(" * depth + "principal is Token" + ")" * depth), 0)
        except InvalidArgument:
            return False
        return True

    depth = max(d for d in range(20, 161, 20) if passes(d))
    daemon = Daemon(tmp_path / "data", "approvals = 0\n", own_interpreter=True)
    daemon.init()
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    resource.setrlimit(resource.RLIMIT_STACK, (512 * 1024, hard))
    try:
        daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    try:
        file = tmp_path / "deep.cedar"
        deep = "(" * depth + "principal is Token" + ")" * depth
        file.write_text(of(deep).replace("permit", "forbid"))
        officer = daemon.person("olivia", "admin", "security-officer")
        done = daemon.run("policy", "apply", str(file), **officer)
        assert done.code == 0, done.err
        assert daemon.run("doctor").code == 0
    finally:
        assert daemon.stop() == 0
