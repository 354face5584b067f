"""Records as messages, and enums in both directions."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from privyseal.v1 import access_service_pb2 as access_pb
from privyseal.v1 import app_service_pb2 as app_pb
from privyseal.v1 import approval_service_pb2 as approval_pb
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import policy_service_pb2 as policy_pb
from privyseal.v1 import release_service_pb2 as release_pb
from privyseal.v1 import types_pb2 as pb
from privyseal.verify.keys import spki_pem
from privyseal.verify.statement import NativeRange

from privyseald.model.approvals import Approval
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Action, Grant, Role
from privyseald.model.records import (
    AppRecord,
    ChannelRecord,
    DeniedCertificate,
    DeploymentRecord,
    KeyRecord,
    KeyVersionRecord,
    PolicyRecord,
    ReleaseRecord,
    TokenRecord,
)
from privyseald.model.schemes import Algorithm, Scheme


def _number(prefix: str, value: str) -> str:
    return f"{prefix}_{value.upper().replace('-', '_')}"


@functools.cache
def scheme_to_wire(scheme: str) -> pb.Scheme.ValueType:
    """Return the enum value of a scheme."""
    return pb.Scheme.Value(_number("SCHEME", scheme))


def scheme(value: pb.Scheme.ValueType) -> Scheme:
    """Return the scheme. Raises InvalidArgument."""
    for known in Scheme:
        if scheme_to_wire(known) == value:
            return known
    raise InvalidArgument("scheme", "must be one this daemon knows")


@functools.cache
def algorithm_to_wire(algorithm: str) -> pb.Algorithm.ValueType:
    """Return the enum value of an algorithm."""
    return pb.Algorithm.Value(_number("ALGORITHM", algorithm))


def algorithm(value: pb.Algorithm.ValueType) -> Algorithm | None:
    """Return the algorithm, None for unspecified. Raises InvalidArgument."""
    if value == pb.ALGORITHM_UNSPECIFIED:
        return None
    for known in Algorithm:
        if algorithm_to_wire(known) == value:
            return known
    raise InvalidArgument("algorithm", "must be one this daemon knows")


def role(value: pb.Role.ValueType) -> Role:
    """Return the role. Raises InvalidArgument."""
    for known in Role:
        if role_to_wire(known) == value:
            return known
    raise InvalidArgument("role", "must be one this daemon knows")


def role_to_wire(value: Role) -> pb.Role.ValueType:
    """Return the enum value of a role."""
    return pb.Role.Value(_number("ROLE", value))


def ranges(values: Iterable[pb.NativeRange]) -> tuple[NativeRange, ...]:
    """Return native ranges. Raises InvalidArgument."""
    platforms = {pb.PLATFORM_ANDROID: "android", pb.PLATFORM_IOS: "ios"}
    try:
        return tuple(NativeRange(platforms[v.platform], v.min, v.max, v.eq) for v in values)
    except KeyError:
        raise InvalidArgument("native_ranges", "must name a platform") from None


def ranges_to_wire(values: Iterable[NativeRange]) -> list[pb.NativeRange]:
    """Return native ranges as messages."""
    return [
        pb.NativeRange(
            platform=pb.Platform.Value(_number("PLATFORM", v.platform)),
            min=v.min,
            max=v.max,
            eq=v.eq,
        )
        for v in values
    ]


def time(seconds: int) -> Timestamp:
    """Return a time."""
    return Timestamp(seconds=seconds)


def _maybe(seconds: int) -> Timestamp | None:
    return time(seconds) if seconds else None


def app(record: AppRecord) -> app_pb.App:
    """Return an app."""
    return app_pb.App(
        name=f"apps/{record.id}",
        display_name=record.display_name,
        create_time=time(record.created_at),
    )


def key_version(record: KeyVersionRecord) -> key_pb.KeyVersion:
    """Return a key version; its private key stays where it is."""
    return key_pb.KeyVersion(
        name=record.name,
        algorithm=algorithm_to_wire(record.algorithm),
        state=pb.KeyVersionState.Value(_number("KEY_VERSION_STATE", record.state)),
        public_key=spki_pem(record.public_key),
        public_key_sha256=record.public_key_sha256,
        create_time=time(record.created_at),
        protection=record.protection,
        activate_time=_maybe(record.activated_at),
        expire_time=_maybe(record.expires_at),
        destroy_time=_maybe(record.destroy_at),
        compromise_time=_maybe(record.compromised_at),
        certificate=record.certificate,
        certificate_end_time=_maybe(record.certificate_ends),
        certificate_anchor_sha256=record.anchor_sha256,
    )


def key(record: KeyRecord) -> key_pb.Key:
    """Return a key with its versions."""
    return key_pb.Key(
        name=record.name,
        scheme=scheme_to_wire(record.scheme),
        primary=f"{record.name}/versions/{record.primary}",
        versions=[key_version(v) for v in record.versions],
        create_time=time(record.created_at),
        cryptoperiod_days=record.cryptoperiod_days,
    )


def release(record: ReleaseRecord) -> release_pb.Release:
    """Return a release."""
    return release_pb.Release(
        name=record.name,
        version=record.version,
        artifact_url=record.artifact_url,
        artifact_type=release_pb.ArtifactType.Value(_number("ARTIFACT_TYPE", record.artifact_type)),
        bundle_sha256=record.bundle_sha256,
        bundle_length=record.bundle_length,
        signed_native_ranges=ranges_to_wire(record.signed_ranges),
        native_ranges=ranges_to_wire(record.ranges),
        commit_sha=record.commit_sha,
        commit_ref=record.commit_ref,
        commit_message=record.commit_message,
        create_time=time(record.created_at),
        withdraw_time=_maybe(record.withdrawn_at),
    )


def channel(record: ChannelRecord) -> release_pb.Channel:
    """Return a channel."""
    target = f"apps/{record.app}/releases/{record.counter}" if record.counter else ""
    return release_pb.Channel(name=record.name, release=target, create_time=time(record.created_at))


def deployment(record: DeploymentRecord) -> release_pb.Deployment:
    """Return a deployment."""
    return release_pb.Deployment(
        channel=f"apps/{record.app}/channels/{record.channel}",
        release=f"apps/{record.app}/releases/{record.counter}",
        version=record.version,
        principal=record.principal,
        create_time=time(record.created_at),
        log_index=record.log_index,
    )


def token(record: TokenRecord) -> access_pb.Token:
    """Return a token without its secret."""
    return access_pb.Token(
        name=f"tokens/{record.id}",
        display_name=record.display_name,
        create_time=time(record.created_at),
        expire_time=time(record.expires_at),
        revoked=record.revoked,
    )


def grant(record: Grant) -> access_pb.Grant:
    """Return a grant."""
    return access_pb.Grant(
        name=f"grants/{record.id}",
        principal=record.principal,
        role=role_to_wire(record.role),
        resource=f"apps/{record.app}",
        create_time=time(record.created_at),
        conditions=dict(record.conditions),
        expire_time=time(record.expires_at) if record.expires_at else None,
        break_glass=record.break_glass,
    )


def denied_certificate(record: DeniedCertificate) -> access_pb.DeniedCertificate:
    """Return a denied certificate."""
    return access_pb.DeniedCertificate(
        serial=record.serial,
        reason=record.reason,
        principal=record.principal,
        create_time=time(record.created_at),
    )


def action(value: str) -> Action:
    """Return the action. Raises InvalidArgument."""
    try:
        return Action(value)
    except ValueError:
        known = ", ".join(sorted(Action))
        raise InvalidArgument("action", f"must be one of {known}") from None


def approval(record: Approval, now: int) -> approval_pb.Approval:
    """Return a request for consent, with what has become of it."""
    return approval_pb.Approval(
        name=record.name,
        action=record.action,
        resource=f"apps/{record.app}",
        subject=record.subject,
        requester=record.requester,
        beneficiary=record.beneficiary,
        reason=record.reason,
        role=role_to_wire(Role(record.role)) if record.role else pb.ROLE_UNSPECIFIED,
        ref=record.ref,
        workflow=record.workflow,
        needed=record.needed,
        approvers=record.approvers,
        uses=record.uses,
        used=record.used,
        state=approval_pb.ApprovalState.Value(_number("APPROVAL_STATE", record.state(now))),
        create_time=time(record.created_at),
        expire_time=time(record.expires_at),
        rejected_by=record.rejected_by,
    )


def policies(record: PolicyRecord) -> policy_pb.Policies:
    """Return policies."""
    return policy_pb.Policies(
        name=f"policies/{record.version}",
        text=record.text,
        principal=record.principal,
        create_time=time(record.created_at),
    )
