"""Deny by default, by any method: on another app, and beyond a role on one's own."""

import os
import uuid

import grpc
import pytest
from google.protobuf import message_factory
from privyseal.connection import Connection, load_profile
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import app_service_pb2 as app_pb
from privyseal.v1 import approval_service_pb2 as approval_pb
from privyseal.v1 import signing_service_pb2 as signing_pb

from tests.e2e.test_protocol import services

# Open to whoever is let in at all, and why.
OPEN = {
    "WhoAmI": "says to a caller what the caller is",
    "ExchangeToken": "is how a workload is let in; its identity token decides",
    "GetImportKey": "returns a public key, under which a key to import is sealed",
    "ListApps": "returns those that the caller may see; tested below",
    "GetCheckpoint": "returns what a witness and any verifier of a receipt must see",
    "GetInclusionProof": "returns hashes",
    "GetConsistencyProof": "returns hashes",
}
READ = {"GetApp", "GetApproval", "ListApprovals", "GetKey", "ListKeys", "ListSuccessors"} | {
    *("ListNativeBuilds", "GetRelease", "ListReleases", "ListChannels", "ListDeployments"),
    *("GetRotation", "ListRotations", "GetFieldStatus"),
}
# What a role on an app lets its holder do there, besides reading. Officers alone say that a native
# build has ended: what it trusted may then be retired.
MORE = {
    "admin": {"InspectToken", "CreateToken", "CreateGrant", "ListGrants", "RevokeGrant"}
    | {"RequestApproval"},
    "security-officer": {"CreateKey", "ImportKey", "SetCryptoperiod", "RecordCeremony"}
    | {f"{verb}KeyVersion" for verb in ("Create", "Suspend", "Resume", "Deactivate")}
    | {f"{verb}KeyVersion" for verb in ("Compromise", "Destroy", "Restore")}
    | {"StartRotation", "AdvanceRotation", "AbortRotation", "RegisterNativeBuild"}
    | {"EndNativeBuild", "WithdrawRelease", "RequestApproval"},
    "signer": {"SignRelease", "SignReleases", "StreamReleases", "SignArchive"},
    "releaser": {"RegisterRelease", "SetNativeVersions", "WithdrawRelease", "Deploy"}
    | {"CreateChannel", "DeleteChannel", "RegisterNativeBuild", "RequestApproval"},
    "auditor": set(),
}


def filled(app, approval, grant, token):
    """Return for every method the fields of a request that its owner could send."""
    parent = f"apps/{app}"
    key = f"{parent}/keys/statement-v1"
    version, release = f"{key}/versions/1", f"{parent}/releases/1"
    signing = {"parent": parent, "version": "1", "bundle_sha256": b"d" * 32} | {
        "bundle_length": 1,
        "manifest_sha256": b"m" * 32,
    }
    asked = signing_pb.SignReleaseRequest(**signing, request_id=str(uuid.uuid4()))
    why = {"reason": "x"}
    one = {"name": version, **why}
    return {
        "InspectToken": {"resource": parent, "id_token": "x"},
        "CreateToken": {"display_name": "x", "roles": ["ROLE_SIGNER"], "resource": parent},
        "ListTokens": {},
        "RevokeToken": {"name": token},
        "CreateGrant": {"principal": token.replace("tokens/", "token:"), "role": "ROLE_SIGNER"}
        | {"resource": parent},
        "ListGrants": {"resource": parent},
        "RevokeGrant": {"name": grant},
        "DenyCertificate": {"serial": "ab", **why},
        "ListDeniedCertificates": {},
        "CreateApp": {"app_id": "made-by-a-stranger"},
        "GetApp": {"name": parent},
        "RequestApproval": {"action": "key.destroy", "resource": parent, **why}
        | {"subject": f"{version} after 7d"},
        "GetApproval": {"name": approval},
        "ListApprovals": {"resource": parent},
        "Approve": {"name": approval},
        "Reject": {"name": approval},
        "CreateBackup": {},
        "CreateKey": {"parent": parent, "scheme": "SCHEME_CAPAWESOME_V1"},
        "ImportKey": {"parent": parent, "scheme": "SCHEME_CAPAWESOME_V1"}
        | {"algorithm": "ALGORITHM_RSA_2048", "public_key_sha256": b"x" * 32}
        | {"sealed_private_key": b"x" * 2000},
        "GetKey": {"name": key},
        "ListKeys": {"parent": parent},
        "SuspendKeyVersion": one,
        "ResumeKeyVersion": one,
        "CreateKeyVersion": {"parent": key},
        "DeactivateKeyVersion": one,
        "CompromiseKeyVersion": {"name": version, "evidence": "x"},
        "DestroyKeyVersion": one,
        "RestoreKeyVersion": one,
        "SetCryptoperiod": {"name": key, "days": 30},
        "ListSuccessors": {"parent": key},
        "RecordCeremony": {"parent": parent, "title": "x", "participants": ["a", "b"]}
        | {"file_sha256": b"x" * 32, "transcript_sha256": b"x" * 32, "key_versions": [version]},
        "ListEntries": {},
        "RegisterNativeBuild": {"parent": parent, "native_build_id": "n", "version_name": "1"}
        | {"platform": "PLATFORM_ANDROID", "version_code": "1", "plugin": "capawesome"}
        | {"trusted_keys": [os.urandom(32)]},
        "ListNativeBuilds": {"parent": parent},
        "EndNativeBuild": {"name": f"{parent}/nativeBuilds/n", **why},
        "ApplyPolicies": {"text": "", "replaces": "policies/0"},
        "GetPolicies": {},
        "EvaluatePolicies": {"text": ""},
        "RegisterRelease": {"parent": parent, "version": "1", "artifact_type": 1}
        | {"artifact_url": "https://x.example/a.zip"},
        "GetRelease": {"name": release},
        "ListReleases": {"parent": parent},
        "SetNativeVersions": {"name": release, "native_ranges": [{"platform": "PLATFORM_ANDROID"}]},
        "WithdrawRelease": {"name": release, **why},
        "CreateChannel": {"parent": parent, "channel_id": "beta"},
        "ListChannels": {"parent": parent},
        "DeleteChannel": {"name": f"{parent}/channels/production"},
        "Deploy": {"release": release, "channels": [f"{parent}/channels/production"]},
        "ListDeployments": {"parent": f"{parent}/channels/production"},
        "StartRotation": {"parent": key, "kind": 1, **why},
        "GetRotation": {"name": f"{key}/rotations/1"},
        "ListRotations": {"parent": key},
        "AdvanceRotation": {"name": f"{key}/rotations/1", "expected_state": 1},
        "AbortRotation": {"name": f"{key}/rotations/1", **why},
        "GetFieldStatus": {"name": key},
        "SignRelease": signing,
        "SignReleases": {"releases": [asked]},
        "StreamReleases": signing,
        "SignArchive": {"release": asked},
    }


def call(to, method, fields, metadata):
    """Call a method, whatever streams; return its answer, or the code of its refusal."""
    request = message_factory.GetMessageClass(method.input_type)(**fields)
    if "request_id" in method.input_type.fields_by_name:
        request.request_id = str(uuid.uuid4())
    streams = (
        ("stream" if method.client_streaming else "unary")
        + "_"
        + ("stream" if method.server_streaming else "unary")
    )
    send = getattr(to, streams)(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    try:
        answer = send(
            iter([request]) if method.client_streaming else request, metadata=metadata, timeout=30
        )
        answer = next(answer) if method.server_streaming else answer
    except grpc.RpcError as error:
        return error.code()
    # Where many are signed, each is answered for itself.
    for result in [answer, *getattr(answer, "results", ())]:
        if "error" in result.DESCRIPTOR.fields_by_name and result.HasField("error"):
            return next(code for code in grpc.StatusCode if code.value[0] == result.error.code)
    return answer


def bearer(daemon, app, *roles):
    """Return the header of a new token with roles on an app."""
    secret = daemon.token(app, *roles)["PRIVYSEAL_TOKEN"]
    return (("authorization", f"Bearer {secret}"),)


@pytest.fixture(scope="module")
def stranger(daemon, tmp_path_factory):
    """A token that may do all on an app of its own; returns its header, that app, and the other."""
    folder = tmp_path_factory.mktemp("strangers")
    mine, other = ("app-" + uuid.uuid4().hex[:8] for _ in range(2))
    for app in (mine, other):
        daemon.ok("app", "create", "--app-id", app, "--statement-key", folder / f"{app}.pem")
    return bearer(daemon, mine, *MORE), mine, other


@pytest.fixture(scope="module")
def to(daemon):
    ca = (daemon.data / "tls/ca.pem").read_bytes()
    with grpc.secure_channel(daemon.tokens, grpc.ssl_channel_credentials(ca)) as made:
        yield made


def requests_of(daemon, app):
    """Return the requests, with an approval, a grant and a token of an app that are there."""
    token = daemon.token(app, "signer")["NAME"]
    with Connection(load_profile(str(daemon.data / "admin/profile.toml"))) as admin:
        approval = admin.approvals.RequestApproval(
            approval_pb.RequestApprovalRequest(
                action="key.destroy",
                resource=f"apps/{app}",
                subject=f"apps/{app}/keys/statement-v1/versions/1 after 7d",
                reason="x",
                request_id=str(uuid.uuid4()),
            )
        ).approval.name
        grants = admin.access.ListGrants(access_pb.ListGrantsRequest(resource=f"apps/{app}"))
        principal = token.replace("tokens/", "token:")
        (grant,) = (g.name for g in grants.grants if g.principal == principal)
    return filled(app, approval, grant, token)


@pytest.fixture(scope="module")
def theirs(daemon, stranger):
    """The requests about the other app."""
    _, _, other = stranger
    return requests_of(daemon, other)


def test_every_method_is_tried_or_open(theirs):
    assert set(theirs) | set(OPEN) == {m.name for s in services() for m in s.methods}
    assert not set(theirs) & set(OPEN)


@pytest.mark.parametrize(
    "method",
    [m for s in services() for m in s.methods if m.name not in OPEN],
    ids=lambda method: method.name,
)
def test_what_is_of_another_app_is_refused(to, stranger, theirs, method):
    header, _, _ = stranger
    answer = call(to, method, theirs[method.name], header)
    assert answer is grpc.StatusCode.PERMISSION_DENIED


def test_of_all_that_was_tried_nothing_was_done(daemon, stranger, to, theirs):
    header, _, _ = stranger
    before = len(daemon.entries())
    for method in (m for s in services() for m in s.methods if m.name not in OPEN):
        call(to, method, theirs[method.name], header)
    assert {entry["act"] for entry in daemon.entries()[before:]} <= {"refusal"}


def test_apps_are_listed_to_who_may_see_them(to, stranger):
    header, mine, _ = stranger
    (method,) = (m for s in services() for m in s.methods if m.name == "ListApps")
    apps = call(to, method, {}, header).apps
    assert [app.name for app in apps] == [f"apps/{mine}"]
    assert isinstance(apps[0], app_pb.App)


@pytest.mark.parametrize("role", MORE)
def test_a_role_lets_its_holder_do_what_it_is_for_and_no_more(daemon, to, tmp_path, role):
    app = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", app, "--statement-key", tmp_path / "statement.pem")
    header, requests = bearer(daemon, app, role), requests_of(daemon, app)
    may = {
        method.name
        for method in (m for s in services() for m in s.methods if m.name not in OPEN)
        if call(to, method, requests[method.name], header) is not grpc.StatusCode.PERMISSION_DENIED
    }
    assert may == READ | MORE[role]
