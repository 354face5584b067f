"""Policies, approvals, signing windows and break-glass, as the people who use them."""

import json
import sqlite3
import time
import urllib.request
import uuid

import grpc
import pytest

from tests.conftest import Daemon, free_port


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    """A daemon, and people: two officers, two approvers, a responder."""
    metrics = free_port()
    settings = f'metrics = "127.0.0.1:{metrics}"\n'
    running = Daemon(tmp_path_factory.mktemp("team") / "data", settings)
    running.init()
    running.start()
    running.metrics = metrics
    running.people = {
        "olivia": running.person("olivia", "security-officer", "admin"),
        "oscar": running.person("oscar", "security-officer", "approver"),
        "anna": running.person("anna", "approver"),
        "arne": running.person("arne", "approver"),
        "rita": running.person("rita", "responder"),
    }
    yield running
    running.stop()


@pytest.fixture
def app(team, tmp_path):
    app = "app-" + uuid.uuid4().hex[:8]
    team.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    team.ok(
        *("live-update", "generate-signing-key", "--app-id", app),
        *("--public", tmp_path / "capawesome.pem"),
    )
    team.ok("live-update", "create-channel", "--app-id", app, "--name", "production")
    return app


def ask(team, who, *arguments, approvers=()):
    """Ask for consent as one person; others give it. Return the request's name."""
    name = team.ok("approval", *arguments, "--reason", "test", **team.people[who])["approval"]
    for approver in approvers:
        team.ok("approval", "approve", name, **team.people[approver])
    return name


def apply(team, text, tmp_path, *, consent=True):
    """Put policies in force as Olivia, with Anna's consent."""
    file = tmp_path / "policies.cedar"
    file.write_text(text)
    done = team.run("policy", "apply", file, **team.people["olivia"])
    if consent:
        assert "APPROVAL" not in done.err
        assert done.code == 1
        assert "asks for the consent of others" in done.err
        follow(team, done.err, "olivia", "anna")
        team.ok("policy", "apply", file, **team.people["olivia"])
    return done


def follow(team, told, who, *approvers):
    """Do what a refusal says, word by word, and have it approved."""
    import shlex

    words = shlex.split(told.partition("ask with: privyseal ")[2])
    return ask(team, who, *words[1:], approvers=approvers)


def acts(team, *names):
    return [e for e in team.entries() if e["act"] in names]


def test_destroying_a_key_needs_another_person(team, app):
    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    olivia = team.people["olivia"]
    destroy = ("key", "destroy", version, "--reason", "leaked")
    team.ok("key", "suspend", version, "--reason", "leaked", **olivia)

    told = team.run(*destroy, **olivia)
    assert told.code == 1
    assert "builtin.approval" in told.err
    name = follow(team, told.err, "olivia")

    assert team.run("approval", "approve", name, **olivia).code == 1
    oscars = (
        "request",
        "--action",
        "key.destroy",
        "--app-id",
        app,
        "--subject",
        f"{version} after 7d",
    )
    own = team.run("approval", "approve", ask(team, "oscar", *oscars), **team.people["oscar"])
    assert own.code == 1
    assert "cannot give it" in own.err
    assert team.run(*destroy, **olivia).code == 1
    team.ok("approval", "approve", name, **team.people["anna"])
    again = team.run("approval", "approve", name, **team.people["anna"])
    assert "it must be pending" in again.err

    other = team.run(*destroy, **team.people["oscar"])
    assert other.code == 1, "the consent was to Olivia's act"
    assert team.ok(*destroy, **olivia)["state"] == "DESTROY_SCHEDULED"
    listed = team.ok("approval", "list", "--app-id", app)["approvals"]
    assert {a["approval"]: a["state"] for a in listed}[name] == "used"
    assert team.run("key", "resume", version, "--reason", "oops", **olivia).code == 1
    told = [e["act"] for e in acts(team, "approval.request", "approval.approve", "approval.use")]
    assert told[-3:] == ["approval.request", "approval.approve", "approval.use"]
    team.ok("log", "verify", "--log-key", team.data / "log.vkey")


def test_who_forces_is_told_of_both_consents_at_once(team, app):
    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    olivia = team.people["olivia"]
    team.ok("key", "suspend", version, "--reason", "x", **olivia)
    told = team.run("key", "destroy", version, "--reason", "x", "--force", **olivia)
    assert told.code == 1
    assert "--action key.destroy " in told.err
    assert "--action key.force-retire " in told.err


def test_an_answer_that_was_lost_is_got_again_though_the_consent_is_used(team, app):
    from privyseal.connection import Connection, load_profile
    from privyseal.v1 import key_service_pb2 as pb

    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    team.ok("key", "suspend", version, "--reason", "x", **team.people["olivia"])
    ask(
        *(team, "olivia", "request", "--action", "key.destroy", "--app-id", app),
        *("--subject", f"{version} after 7d"),
        approvers=["anna"],
    )
    request = pb.DestroyKeyVersionRequest(
        name=version, reason="leaked", request_id=str(uuid.uuid4())
    )
    with Connection(load_profile(team.people["olivia"]["PRIVYSEAL_PROFILE"])) as to:
        first = to.keys.DestroyKeyVersion(request)
        assert to.keys.DestroyKeyVersion(request) == first
    with (
        Connection(load_profile(team.people["oscar"]["PRIVYSEAL_PROFILE"])) as to,
        pytest.raises(grpc.RpcError) as error,
    ):
        to.keys.DestroyKeyVersion(request)
    assert error.value.code().name == "FAILED_PRECONDITION", "it is the answer to Olivia alone"


def test_a_flood_of_requests_hides_no_consent(team, app):
    from privyseal.connection import Connection, load_profile
    from privyseal.v1 import approval_service_pb2 as pb

    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    team.ok("key", "suspend", version, "--reason", "x", **team.people["olivia"])
    ask(
        *(team, "olivia", "request", "--action", "key.destroy", "--app-id", app),
        *("--subject", f"{version} after 7d"),
        approvers=["anna"],
    )
    with Connection(load_profile(team.people["oscar"]["PRIVYSEAL_PROFILE"])) as to:
        time.sleep(1.1)  # times are in seconds: the flood is surely newer
        for number in range(250):
            wanted = {"action": "key.destroy", "resource": f"apps/{app}", "subject": f"{number}"}
            flood = pb.RequestApprovalRequest(**wanted, reason="flood")
            to.call(to.approvals.RequestApproval, flood)
    assert team.ok("approval", "list", "--app-id", app)["approvals"][-1]["subject"] != version
    destroy = ("key", "destroy", version, "--reason", "x")
    assert team.ok(*destroy, **team.people["olivia"])["state"] == "DESTROY_SCHEDULED"


def test_a_destroyed_key_is_gone_from_the_disk(team, app):
    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    with sqlite3.connect(team.data / "privyseal.db") as database:
        query = "select blob from key_versions where app = ? and key = 'capawesome-v1'"
        (blob,) = database.execute(query, (app,)).fetchone()
    olivia = team.people["olivia"]
    team.ok("key", "suspend", version, "--reason", "x", **olivia)
    ask(
        *(team, "olivia", "request", "--action", "key.destroy", "--app-id", app),
        *("--subject", f"{version} after 1s"),
        approvers=["anna"],
    )
    too_soon = team.run("key", "destroy", version, "--reason", "x", "--after", "0s", **olivia)
    assert "after 0s" in too_soon.err, "the consent is to another delay"
    team.ok("key", "destroy", version, "--reason", "x", "--after", "1s", **olivia)
    end = time.monotonic() + 20
    while team.ok("key", "show", version)["state"] != "DESTROYED":
        assert time.monotonic() < end
        time.sleep(0.3)
    with sqlite3.connect(team.data / "privyseal.db") as database:
        assert database.execute(query, (app,)).fetchone() == (b"",)
        database.execute("pragma wal_checkpoint(truncate)")
    files = list(team.data.glob("privyseal.db*"))
    assert files
    assert not any(blob[16:48] in p.read_bytes() for p in files)


def test_consent_can_be_refused_taken_back_and_runs_out(team, app):
    subject = (
        "--action",
        "key.destroy",
        "--app-id",
        app,
        "--subject",
        f"apps/{app}/keys/k/versions/1",
    )
    refused = ask(team, "olivia", "request", *subject)
    assert team.ok("approval", "reject", refused, **team.people["anna"])["state"] == "rejected"
    assert team.run("approval", "approve", refused, **team.people["arne"]).code == 1
    mine = ask(team, "olivia", "request", *subject, approvers=["anna"])
    assert team.ok("approval", "reject", mine, **team.people["olivia"])["state"] == "rejected"
    two = ask(team, "olivia", "request", *subject, "--needed", "2", approvers=["anna"])
    assert (
        "approved this already" in team.run("approval", "approve", two, **team.people["anna"]).err
    )
    assert team.ok("approval", "approve", two, **team.people["arne"])["state"] == "approved"
    stranger = team.run("approval", "approve", two, **team.people["rita"])
    assert "no grant for approval.give" in stranger.err


PRODUCTION = """
@id("production-needs-two")
forbid (principal, action == Action::"release.deploy", resource)
when { context.channel == "production" }
unless { context.approvals >= 2 || context.break_glass };

@id("bank-signs-in-windows")
forbid (principal, action == Action::"release.sign", resource == App::"APP")
unless { context.window };
"""


def test_policies_are_applied_tested_explained_and_wrong_ones_refused(team, app, tmp_path):
    apply(team, PRODUCTION.replace("APP", app), tmp_path)
    shown = team.ok("policy", "show")
    assert "production-needs-two" in shown["text"]
    assert 'action "release.sign"' in shown["schema"]

    wrong = tmp_path / "wrong.cedar"
    for text, told in (
        ('@id("x") permit (principal, action, resource) when { principal.shoe };', "shoe"),
        ('@id("x") forbid (principal, action, resource);', "could not change them again"),
    ):
        wrong.write_text(text)
        done = team.run("policy", "apply", wrong, **team.people["olivia"])
        if "consent" in done.err:
            follow(team, done.err, "olivia", "anna")
            done = team.run("policy", "apply", wrong, **team.people["olivia"])
        assert done.code == 1
        assert told in done.err
        assert team.ok("policy", "show")["policies"] == shown["policies"], "the old ones stay"

    cases = tmp_path / "cases.yaml"
    cases.write_text(
        f"""
cases:
  - name: main signs in a window
    principal: workload:github:456789
    attributes: {{ref: refs/heads/main}}
    grants: [{{role: signer, conditions: {{ref: refs/heads/main}}}}]
    action: release.sign
    app: {app}
    window: true
    expect: allow
  - name: not outside of one
    principal: workload:github:456789
    attributes: {{ref: refs/heads/main}}
    grants: [{{role: signer}}]
    action: release.sign
    app: {app}
    expect: deny
    policy: bank-signs-in-windows
  - name: nobody else
    principal: certificate:mallory
    action: release.sign
    app: {app}
    window: true
    expect: deny
"""
    )
    assert team.ok("policy", "test", cases)["failed"] == 0
    cases.write_text(cases.read_text().replace("expect: allow", "expect: deny"))
    failed = team.run("policy", "test", cases)
    assert failed.code == 1
    assert "FAIL  main signs in a window: expected deny, got allow" in failed.out

    ask_for = ("policy", "explain", "--app-id", app, "--action")
    denied = team.run(*ask_for, "release.sign", "--principal", "certificate:admin")
    assert denied.out.strip() == "denied by bank-signs-in-windows"
    allowed = team.run(*ask_for, "key.manage", "--principal", "certificate:olivia")
    assert allowed.out.startswith("allowed by grants/")
    nothing = team.run(*ask_for, "key.manage", "--principal", "certificate:mallory")
    assert nothing.out.strip() == "denied: nothing allows it"
    for bad in ("cases: 7", "cases: [{name: x}]", "cases: [[1, 2]]", "{", "cases: [{shoe: 1}]"):
        cases.write_text(bad)
        done = team.run("policy", "test", cases)
        assert done.code == 1
        assert "Traceback" not in done.err


def test_a_deployment_to_production_waits_for_two_people(team, app, www, tmp_path):
    apply(team, PRODUCTION.replace("APP", "bank"), tmp_path)
    release = team.ok(
        *("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store"),
        *("--version", "1.0.0"),
    )["release"]
    number = release.rpartition("/")[2]
    deploy = ("deploy", "web", "--app-id", app, "--build-id", number, "--destination")
    team.ok("live-update", "create-channel", "--app-id", app, "--name", "beta")
    team.ok(*deploy, "beta")

    told = team.run(*deploy, "production")
    assert told.code == 1
    assert "production-needs-two" in told.err
    team.people["admin"] = {}
    name = follow(team, told.err, "admin", "anna")
    assert team.run(*deploy, "production").code == 1, "one is not two"
    team.ok("approval", "reject", name, **team.people["anna"])
    words = ("request", "--action", "release.deploy", "--app-id", app, "--needed", "2")
    subject = f"apps/{app}/channels/production = {release}"
    ask(team, "admin", *words, "--subject", subject, approvers=["anna", "arne"])
    team.ok(*deploy, "production")
    assert team.run(*deploy, "production").code == 1, "consent is used up"


def test_a_window_opens_signing_for_so_many_releases(team, app, www, tmp_path):
    apply(team, PRODUCTION.replace("APP", app), tmp_path)
    team.people["admin"] = {}
    publish = ("publish", "--app-id", app, "--build-dir", www, "--storage", tmp_path / "store")
    told = team.run(*publish, "--version", "1")
    assert told.code == 1
    assert "asks for a signing window" in told.err
    other = ("window", "--app-id", app, "--ref", "refs/heads/main")
    ask(team, "admin", *other, approvers=["anna"])
    assert team.run(*publish, "--version", "1").code == 1, "the window is for a ref of CI"
    ask(team, "admin", "window", "--app-id", app, "--releases", "2", approvers=["anna"])
    team.ok(*publish, "--version", "1")
    team.ok(*publish, "--version", "1")  # the same release again uses up nothing
    (www / "index.html").write_text("2")
    team.ok(*publish, "--version", "2")
    (www / "index.html").write_text("3")
    third = team.run(*publish, "--version", "3")
    assert third.code == 1
    assert "asks for a signing window" in third.err
    uses = [e["use"] for e in acts(team, "approval.use") if e["action"] == "release.sign"]
    assert uses[-2:] == [1, 2]


def test_break_glass_takes_two_people_ends_by_itself_and_is_loud(team, app):
    rita = team.people["rita"]
    suspend = ("key", "suspend", f"apps/{app}/keys/capawesome-v1/versions/1", "--reason", "leak")
    assert team.run(*suspend, **rita).code == 1
    glass = ("break-glass", "--app-id", app, "--role", "security-officer", "--minutes", "1")
    name = ask(team, "rita", *glass)
    assert team.run(*suspend, **rita).code == 1
    assert team.run("approval", "approve", name, **rita).code == 1
    opened = team.ok("approval", "approve", name, **team.people["arne"])
    assert opened["state"] == "used"
    team.ok(*suspend, **rita)
    grants = team.ok("grant", "list", "--app-id", app)["grants"]
    made = [g for g in grants if g.get("breakGlass")]
    assert [(g["principal"], g["role"]) for g in made] == [("certificate:rita", "security-officer")]
    assert made[0]["expireTime"]

    assert [e["role"] for e in acts(team, "break-glass")] == ["security-officer"]
    assert '"event": "BREAK GLASS opened"' in team.log_text()
    assert '"level": "critical"' in team.log_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{team.metrics}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert 'privyseal_break_glass_total{what="opened"} 1.0' in text
    assert "certificate:olivia" not in text
    stranger = team.run("approval", *glass, "--reason", "x", **team.people["anna"])
    assert "no grant for break-glass" in stranger.err


def test_a_break_glass_grant_ends(team, app):
    import sqlite3

    rita = team.people["rita"]
    ask(
        *(team, "rita", "break-glass", "--app-id", app, "--role", "auditor", "--minutes", "1"),
        approvers=["arne"],
    )
    # A minute is long for a test: let it end in two seconds.
    with sqlite3.connect(team.data / "privyseal.db") as database:
        where = "where principal = 'certificate:rita' and app = ? and role = 'auditor'"
        database.execute(f"update grants set expires_at = ? {where}", (int(time.time()) + 2, app))
        database.execute("update state set number = number + 1 where name = 'revision'")
    explain = ("policy", "explain", "--app-id", app, "--principal", "certificate:rita")
    before = json.loads(team.run(*explain, "--action", "policy.read", "--json").out)
    assert before["allowed"]
    time.sleep(2.5)
    after = json.loads(team.run(*explain, "--action", "policy.read", "--json").out)
    assert not after["allowed"]
    assert team.run("app", "list", **rita).code == 0


def test_an_admin_with_a_token_of_its_own_is_not_two_people(team, app):
    subject = f"apps/{app}/keys/statement-v1/versions/1"
    words = ("request", "--action", "key.destroy", "--app-id", app, "--subject", subject)
    name = ask(team, "olivia", *words)
    refused = team.run("access", "create-token", "--name", "x", "--role", "approver")
    assert "is for people" in refused.err
    second = team.token("-", "signer")
    principal = second["NAME"].replace("tokens/", "token:")
    refused = team.run("grant", "create", "--principal", principal, "--role", "approver")
    assert "is for people" in refused.err
    # Also where such a grant is there, from before or from elsewhere.
    with sqlite3.connect(team.data / "privyseal.db") as database:
        database.execute("update grants set role = 'approver' where principal = ?", (principal,))
        database.execute("update state set number = number + 1 where name = 'revision'")
    told = team.run("approval", "approve", name, **second)
    assert told.code == 1
    assert "builtin.people" in told.err


def test_what_is_given_in_an_emergency_ends_with_it(team, app):
    ask(
        *(team, "rita", "break-glass", "--app-id", app, "--role", "admin", "--minutes", "5"),
        approvers=["arne"],
    )
    give = ("grant", "create", "--app-id", app, "--role", "signer", "--principal")
    made = team.ok(*give, "certificate:rita", **team.people["rita"])
    glass = [g for g in team.ok("grant", "list", "--app-id", app)["grants"] if g.get("breakGlass")]
    assert made["expireTime"] == glass[0]["expireTime"]
    token = ("access", "create-token", "--app-id", app, "--name", "x", "--role", "signer")
    told = team.run(*token, **team.people["rita"])
    assert told.code == 1
    assert "outlive" in told.err


def test_an_emergency_is_not_laundered_through_a_second_person(team, app):
    ask(
        *(team, "rita", "break-glass", "--app-id", app, "--role", "admin", "--minutes", "5"),
        approvers=["arne"],
    )
    second = team.person("second")
    give = ("grant", "create", "--app-id", app, "--role", "admin", "--principal")
    ends = team.ok(*give, "certificate:second", **team.people["rita"])["expireTime"]
    assert ends
    # What the second gives ends, too, and no token is made of it.
    assert team.ok(*give, "certificate:rita", **second)["expireTime"] == ends
    token = ("access", "create-token", "--app-id", app, "--name", "x", "--role", "signer")
    assert "outlive" in team.run(*token, **second).err


def test_the_consent_of_who_is_no_approver_any_more_counts_for_nothing(team, app):
    version = f"apps/{app}/keys/capawesome-v1/versions/1"
    team.ok("key", "suspend", version, "--reason", "test", **team.people["olivia"])
    destroy = ("key", "destroy", version, "--reason", "test")
    words = (
        "request",
        "--action",
        "key.destroy",
        "--app-id",
        app,
        "--subject",
        f"{version} after 7d",
    )

    for how in ("grant", "certificate"):
        person = team.person(f"leaver-{how}", "approver", app=app)
        name = ask(team, "olivia", *words)
        team.ok("approval", "approve", name, **person)
        if how == "grant":
            grants = team.ok("grant", "list", "--app-id", app)["grants"]
            mine = [g for g in grants if g["principal"] == f"certificate:leaver-{how}"]
            team.ok("grant", "revoke", mine[0]["grant"])
        else:
            from cryptography import x509

            pem = (team.data / f"leaver-{how}/client.pem").read_bytes()
            serial = f"{x509.load_pem_x509_certificate(pem).serial_number:x}"
            team.ok("access", "deny-certificate", serial, "--reason", "stolen")
        refused = team.run(*destroy, **team.people["olivia"])
        assert refused.code == 1
        assert "asks for the consent of others" in refused.err
    # Of one who still is, it counts.
    team.ok("approval", "approve", ask(team, "olivia", *words), **team.people["arne"])
    team.ok(*destroy, **team.people["olivia"])


@pytest.mark.parametrize("hidden", ["\x9b31m", "\u202e", "line\napprovals/f00", "\u200b"])
def test_what_approvers_read_hides_nothing(team, app, hidden):
    told = team.run(
        *("approval", "window", "--app-id", app, "--reason", f"ok {hidden}"),
        **team.people["olivia"],
    )
    assert told.code == 1
    assert "which is not seen" in told.err
