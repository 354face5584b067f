"""What every method of the protocol keeps to: request ids, errors with details, reflection."""

import uuid
from importlib import import_module

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from privyseal.connection import Connection, load_profile
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import app_service_pb2 as app_pb
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import log_service_pb2 as log_pb
from privyseal.v1 import release_service_pb2 as release_pb

_READS = ("Get", "List", "WhoAmI", "Evaluate", "Inspect")
WITHOUT = {
    # What it makes is bound to the identity token, which counts once.
    "ExchangeToken",
    # Each request in it has its own.
    "SignReleases",
    "SignArchive",
}


FILES = (
    *("access", "app", "approval", "backup", "key", "log", "native", "policy", "release"),
    *("rotation", "signing"),
)


def services():
    for name in FILES:
        yield from import_module(
            f"privyseal.v1.{name}_service_pb2"
        ).DESCRIPTOR.services_by_name.values()


@pytest.fixture
def admin(daemon):
    with Connection(load_profile(str(daemon.data / "admin/profile.toml"))) as connection:
        yield connection


@pytest.fixture
def app(daemon):
    name = "app-" + uuid.uuid4().hex[:8]
    daemon.ok("app", "create", "--app-id", name)
    return name


def details(error):
    """Return reason, fields and preconditions of an error."""
    (raw,) = (v for k, v in error.trailing_metadata() if k == "grpc-status-details-bin")
    status = status_pb2.Status.FromString(raw)
    assert status.message == error.details()
    reason, fields, preconditions = "", [], []
    for packed in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        failed = error_details_pb2.PreconditionFailure()
        if packed.Unpack(info):
            assert info.domain == "privyseal"
            reason = info.reason
        elif packed.Unpack(bad):
            fields = [violation.field for violation in bad.field_violations]
        elif packed.Unpack(failed):
            preconditions = [violation.type for violation in failed.violations]
    return reason, fields, preconditions


def test_every_mutation_has_a_request_id():
    seen = set()
    for service in services():
        for method in service.methods:
            named = "request_id" in method.input_type.fields_by_name
            reads = method.name.startswith(_READS)
            seen.add(method.name)
            assert named is not (reads or method.name in WITHOUT), method.full_name
    assert seen > WITHOUT


def test_errors_carry_reason_field_and_precondition(admin, app):
    def refused(call, request):
        with pytest.raises(grpc.RpcError) as error:
            call(request)
        return error.value.code().name, *details(error.value)

    ids = {"request_id": str(uuid.uuid4())}
    bad = app_pb.CreateAppRequest(app_id="A B", **ids)
    assert refused(admin.apps.CreateApp, bad) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELD",
        ["app_id"],
        [],
    )
    again = app_pb.CreateAppRequest(app_id=app, **ids)
    code, reason, _, _ = refused(admin.apps.CreateApp, again)
    assert (code, reason) == ("ALREADY_EXISTS", "APP_EXISTS")
    nobody = app_pb.GetAppRequest(name="apps/nobody")
    assert refused(admin.apps.GetApp, nobody)[:2] == ("NOT_FOUND", "APP_NOT_FOUND")
    unsigned = release_pb.RegisterReleaseRequest(
        parent=f"apps/{app}",
        version="1",
        artifact_url="https://x.example/a.zip",
        artifact_type=release_pb.ARTIFACT_TYPE_ZIP,
        **ids,
    )
    told = refused(admin.releases.RegisterRelease, unsigned)
    assert told == ("FAILED_PRECONDITION", "NOT_SIGNED", [], ["NOT_SIGNED"])
    beyond = log_pb.GetInclusionProofRequest(index=2**62)
    assert refused(admin.log.GetInclusionProof, beyond)[:2] == ("OUT_OF_RANGE", "BEYOND_LOG")


@pytest.mark.parametrize("start", [2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_entries_beyond_the_log_are_none(admin, start):
    answer = admin.log.ListEntries(log_pb.ListEntriesRequest(start=start))
    assert not answer.entries


@pytest.mark.parametrize("number", ["0", "9" * 18, "9" * 19, "9" * 40, "-1", "x", ""])
def test_numbers_in_names_are_bounded(admin, app, number):
    release = f"apps/{app}/releases/{number}"
    version = f"apps/{app}/keys/statement-v1/versions/{number}"
    ids = {"request_id": str(uuid.uuid4()), "reason": "x"}
    for call, request in (
        (admin.releases.GetRelease, release_pb.GetReleaseRequest(name=release)),
        (admin.releases.WithdrawRelease, release_pb.WithdrawReleaseRequest(name=release, **ids)),
        (admin.keys.SuspendKeyVersion, key_pb.SuspendKeyVersionRequest(name=version, **ids)),
    ):
        with pytest.raises(grpc.RpcError) as error:
            call(request)
        assert error.value.code().name in {"INVALID_ARGUMENT", "NOT_FOUND"}


def test_reflection_lists_every_service(admin):
    stub = reflection_pb2_grpc.ServerReflectionStub(admin._channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = stub.ServerReflectionInfo(asked)
    listed = {service.name for service in answer.list_services_response.service}
    assert {service.full_name for service in services()} <= listed


def test_a_secret_is_shown_once_however_often_it_is_asked_for(admin, app):
    request = access_pb.CreateTokenRequest(
        display_name="ci",
        roles=["ROLE_SIGNER"],
        resource=f"apps/{app}",
        request_id=str(uuid.uuid4()),
    )
    first = admin.access.CreateToken(request, timeout=10)
    assert first.secret.startswith("pst_" + first.token.name.removeprefix("tokens/"))
    with pytest.raises(grpc.RpcError) as caught:
        admin.access.CreateToken(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert details(caught.value)[0] == "SECRET_SHOWN"
    tokens = admin.access.ListTokens(access_pb.ListTokensRequest(), timeout=10).tokens
    assert [t.name for t in tokens].count(first.token.name) == 1
