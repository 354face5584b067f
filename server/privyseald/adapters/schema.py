"""The tables. Migrations bring a database here; a test compares the two."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

state = Table(
    "state",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("number", BigInteger, nullable=False),
)
apps = Table(
    "apps",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
keys = Table(
    "keys",
    metadata,
    Column("app", String(63), nullable=False),
    Column("id", String(63), nullable=False),
    Column("scheme", String(32), nullable=False),
    Column("primary_version", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("app", "id"),
    UniqueConstraint("app", "scheme"),
)
key_versions = Table(
    "key_versions",
    metadata,
    Column("app", String(63), nullable=False),
    Column("key", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("scheme", String(32), nullable=False),
    Column("algorithm", String(32), nullable=False),
    Column("state", String(32), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("public_key_sha256", LargeBinary, nullable=False),
    Column("blob", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("protection", Text, nullable=False, server_default="{}"),
    PrimaryKeyConstraint("app", "key", "version"),
    UniqueConstraint("public_key_sha256"),
)
tokens = Table(
    "tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked", Boolean, nullable=False),
)
grants = Table(
    "grants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    Column("role", String(32), nullable=False),
    Column("app", String(63), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("conditions", Text, nullable=False, server_default="[]"),
    Column("expires_at", BigInteger, nullable=False, server_default="0"),
    Column("break_glass", Boolean, nullable=False, server_default=false()),
)
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("principal", String(128), nullable=False),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("app", String(63), nullable=False),
    Column("digests", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
)
used_tokens = Table(
    "used_tokens",
    metadata,
    Column("issuer", String(63), nullable=False),
    Column("token_sha256", LargeBinary, nullable=False),
    Column("expires_at", BigInteger, nullable=False, index=True),
    PrimaryKeyConstraint("issuer", "token_sha256"),
)
policies = Table(
    "policies",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("principal", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
approvals = Table(
    "approvals",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("action", String(32), nullable=False),
    Column("app", String(63), nullable=False, index=True),
    Column("subject", Text, nullable=False),
    Column("requester", String(128), nullable=False),
    Column("beneficiary", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("role", String(32), nullable=False),
    Column("ref", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("needed", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("used", Integer, nullable=False),
    Column("approvers", Text, nullable=False),
    Column("rejected_by", String(128), nullable=False),
    Column("seconds", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)
denied_certificates = Table(
    "denied_certificates",
    metadata,
    Column("serial", String(64), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("principal", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
signed = Table(
    "signed_releases",
    metadata,
    Column("app", String(63), nullable=False),
    Column("version", String(100), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("content_sha256", LargeBinary, nullable=False),
    Column("receipt", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("app", "version"),
    UniqueConstraint("app", "counter"),
)
releases = Table(
    "releases",
    metadata,
    Column("app", String(63), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("version", String(100), nullable=False),
    Column("artifact_url", Text, nullable=False),
    Column("artifact_type", String(16), nullable=False),
    Column("bundle_sha256", LargeBinary, nullable=False),
    Column("bundle_length", BigInteger, nullable=False),
    Column("signed_ranges", Text, nullable=False),
    Column("ranges", Text, nullable=False),
    Column("commit_sha", String(64), nullable=False),
    Column("commit_ref", Text, nullable=False),
    Column("commit_message", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("app", "counter"),
)
channels = Table(
    "channels",
    metadata,
    Column("app", String(63), nullable=False),
    Column("id", String(100), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("log_index", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("app", "id"),
)
deployments = Table(
    "deployments",
    metadata,
    Column("log_index", BigInteger, nullable=False),
    Column("app", String(63), nullable=False),
    Column("channel", String(100), nullable=False),
    Column("counter", BigInteger, nullable=False),
    Column("version", String(100), nullable=False),
    Column("principal", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("log_index"),
)
answers = Table(
    "answers",
    metadata,
    Column("principal", String(128), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("answer", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("principal", "request_id"),
)
log_leaves = Table(
    "log_leaves",
    metadata,
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
log_nodes = Table(
    "log_nodes",
    metadata,
    Column("level", Integer, nullable=False),
    Column("idx", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("level", "idx"),
)
log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
)
