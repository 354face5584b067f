"""Policies in Cedar (https://docs.cedarpolicy.com): the built-in set, a team's own, grants.

A grant is a link of a role's template: `?principal` is a `Pattern` entity that stands for
the grant, and a caller is in it if it is the grant's principal and meets its conditions;
`?resource` is the app. Policies are parsed once a set. Each CI job is a new caller, but
the jobs of one workload differ in little that policies read: Cedar is shown only the
attributes that the policies name, and callers that look the same to them share what was
linked for the first, with its decisions.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import cedarpy

from privyseald.model.errors import InvalidArgument
from privyseald.model.fields import ALL_APPS
from privyseald.model.policy import (
    PERMISSIONS,
    SENSITIVE,
    Action,
    Caller,
    Decision,
    Grant,
    Query,
    Role,
)
from privyseald.model.workload import ATTRIBUTES

MAX_TEXT = 256 * 1024
_MAX_REMEMBERED = 256
_MAX_DECIDERS = 1024
_KINDS = {
    "token": "Token",
    "certificate": "Certificate",
    "spiffe": "Spiffe",
    "workload": "Workload",
}


def schema_text() -> str:
    """Return the Cedar schema that every policy is validated against."""
    attributes = ", ".join(f"{name}?: String" for name in ATTRIBUTES)
    lines = [
        "entity Pattern;",
        "entity AllApps;",
        "entity App in [AllApps];",
        "entity Token in [Pattern];",
        "entity Certificate in [Pattern] = { serial: String };",
        "entity Spiffe in [Pattern] = { serial: String, trust_domain: String };",
        f"entity Workload in [Pattern] = {{ {attributes} }};",
        "action sensitive;",
        *(f'action "role.{role}";' for role in Role),
    ]
    for action in Action:
        groups = [f'"role.{role}"' for role in Role if action in PERMISSIONS[role]]
        if action in SENSITIVE:
            groups.append("sensitive")
        lines.append(
            f'action "{action}" in [{", ".join(groups)}] appliesTo {{ '
            f"principal: [{', '.join(_KINDS.values())}], resource: [App, AllApps], context: {{ "
            "channel: String, bound: Bool, approvals: Long, window: Bool, break_glass: Bool } };"
        )
    return "\n".join(lines)


def builtin_text(approvals: int) -> str:
    """Return the built-in policies.

    Args:
        approvals: How many people must consent to a sensitive act.
    """
    lines = [
        f'@id("builtin.role.{role}")\n'
        f'permit (principal in ?principal, action in Action::"role.{role}", '
        "resource in ?resource);"
        for role in Role
    ]
    lines += [
        # A stolen session of a workload is worth one app, and the bundles it named.
        '@id("builtin.bound")\nforbid (principal, action, resource) unless { context.bound };',
        # Consent is people's. An admin can make any number of tokens; certificates are issued
        # on the daemon's own machine.
        (
            '@id("builtin.people")\n'
            'forbid (principal, action in [Action::"approval.give", Action::"break-glass"], '
            "resource) unless { principal is Certificate };"
        ),
    ]
    if approvals:
        lines.append(
            '@id("builtin.approval")\nforbid (principal, action in Action::"sensitive", resource) '
            f"unless {{ context.approvals >= {approvals} }};"
        )
    return "\n".join(lines)


class CedarPolicies:
    """Compiles a team's policies together with the built-in set.

    Args:
        approvals: How many people must consent to a sensitive act.
    """

    def __init__(self, approvals: int) -> None:
        self._schema = cedarpy.Schema.from_str(schema_text())
        self._builtin = builtin_text(approvals)

    def compile(self, text: str) -> CedarSet:
        """Return policies that can be asked.

        Args:
            text: The team's policies in Cedar's own syntax; may be empty.

        Raises:
            InvalidArgument: If they cannot be parsed, or do not fit the schema, or are
                templates, or have no name or one that is taken.
        """
        if len(text.encode()) > MAX_TEXT:
            raise InvalidArgument("policies", f"must be at most {MAX_TEXT:,} bytes")
        try:
            own = cedarpy.PolicySet.from_str(text) if text.strip() else None
        except (ValueError, RecursionError) as error:
            raise InvalidArgument("policies", _line(str(error))) from None
        if own is not None:
            if own.templates():
                raise InvalidArgument(
                    "policies", "must not hold templates; grants are made with `grant create`"
                )
            _check_names(text)
            found = cedarpy.validate_policies(text, self._schema)
            if not found.validation_passed:
                named = found.id_annotations_by_policy_id
                texts = [f"{named.get(e.policy_id, e.policy_id)}: {e.error}" for e in found.errors]
                raise InvalidArgument("policies", _line("; ".join(texts)))
        whole = self._builtin + "\n" + text
        return CedarSet(cedarpy.PolicySet.from_str(whole), self._schema, _named_attributes(whole))


class CedarSet:
    """Built-in and team's policies, compiled.

    Args:
        policies: The policies.
        schema: What they were validated against.
        named: The attributes of workloads that they may read.
    """

    def __init__(
        self, policies: cedarpy.PolicySet, schema: cedarpy.Schema, named: tuple[str, ...]
    ) -> None:
        self._policies = policies
        self._schema = schema
        self._named = named
        self._deciders: dict[Any, CedarDecider] = {}

    def decider(self, caller: Caller, *, keep: bool = True) -> CedarDecider:
        """Return the policies as they apply to a caller; see the port."""
        attributes = self._attributes(caller)
        matching = tuple(g.id for g in caller.grants if not g.mismatch(caller.attributes))
        # All that a decision depends on, besides the question.
        alike = (caller.principal, caller.grants, matching, tuple(attributes.items()))
        known = self._deciders.get(alike)
        if known is None:
            linked = self._policies.with_linked_batch([_link(grant) for grant in caller.grants])
            entity = {
                "uid": _uid(caller.principal),
                "attrs": attributes,
                "parents": [{"type": "Pattern", "id": grant_id} for grant_id in matching],
            }
            known = CedarDecider(linked, self._schema, entity, caller.emergencies)
            if keep and len(self._deciders) >= _MAX_DECIDERS:
                self._deciders.clear()
            if keep:
                self._deciders[alike] = known
        return known

    def _attributes(self, caller: Caller) -> dict[str, str]:
        if caller.kind == "workload":
            known = caller.attributes
            return {name: known[name] for name in self._named if name in known}
        if caller.kind == "spiffe":
            domain = caller.principal.removeprefix("spiffe://").partition("/")[0]
            return {"serial": caller.credential, "trust_domain": domain}
        return {"serial": caller.credential} if caller.kind == "certificate" else {}


class CedarDecider:
    """The policies, as they apply to one caller and to all that look the same to them.

    Args:
        policies: The policies, linked for the caller's grants.
        schema: What they were validated against.
        entity: The caller.
        emergencies: Returns the caller's emergency grants on an app.
    """

    def __init__(
        self,
        policies: cedarpy.PolicySet,
        schema: cedarpy.Schema,
        entity: dict[str, Any],
        emergencies: Callable[[str], tuple[Grant, ...]],
    ) -> None:
        self._policies = policies
        self._schema = schema
        self._entity = entity
        self._emergencies = emergencies
        self._entities: dict[str, cedarpy.Entities] = {}
        self._known: dict[Query, Decision] = {}

    def decide(self, query: Query) -> Decision:
        """Answer a question."""
        known = self._known.get(query)
        if known is None:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            known = self._known[query] = self._ask(query)
        return known

    def _ask(self, query: Query) -> Decision:
        resource = _app(query.app)
        entities = self._entities.get(query.app)
        if entities is None:
            parents = [] if query.app == ALL_APPS else [_app(ALL_APPS)]
            app = {"uid": resource, "attrs": {}, "parents": parents}
            entities = cedarpy.Entities.from_json_str(json.dumps([self._entity, app]), self._schema)
            self._entities = {query.app: entities}  # one at a time: apps are many
        asked = {
            "principal": self._entity["uid"],
            "action": {"type": "Action", "id": query.action},
            "resource": resource,
            "context": {
                "channel": query.channel,
                "bound": query.bound,
                "approvals": query.approvals,
                "window": query.window,
                "break_glass": bool(self._emergencies(query.app)),
            },
        }
        answer = cedarpy.is_authorized(asked, self._policies, entities, self._schema)
        diagnostics = answer.diagnostics
        if diagnostics.errors:
            # A policy that cannot be evaluated is skipped by Cedar, a forbid too: deny.
            return Decision(allowed=False, policies=("error",))
        names = diagnostics.id_annotations_by_reason
        reasons = (r if r.startswith("grants/") else names.get(r, r) for r in diagnostics.reasons)
        return Decision(answer.allowed, tuple(sorted(reasons)))


def _link(grant: Grant) -> dict[str, Any]:
    return {
        "template_id": f"builtin.role.{grant.role}",
        "new_id": f"grants/{grant.id}",
        "values": {
            "?principal": {"type": "Pattern", "id": grant.id},
            "?resource": _app(grant.app),
        },
    }


def _uid(principal: str) -> dict[str, str]:
    kind, _, rest = principal.partition(":")
    return {"type": _KINDS[kind], "id": principal if kind == "spiffe" else rest}


def _app(app: str) -> dict[str, str]:
    return {"type": "AllApps" if app == ALL_APPS else "App", "id": app}


def _named_attributes(text: str) -> tuple[str, ...]:
    """Return the attributes of workloads that policies may read.

    Any text in a policy's parsed form that is an attribute's name counts, so that one more
    may be found, and never one less, however the policy writes it.
    """
    found: set[str] = set()
    rest: list[Any] = [json.loads(cedarpy.policies_to_json_str(text))]
    while rest:
        at = rest.pop()
        if isinstance(at, dict):
            rest += [*at.keys(), *at.values()]
        elif isinstance(at, list):
            rest += at
        elif isinstance(at, str):
            found.add(at)
    return tuple(name for name in ATTRIBUTES if name in found)


def _check_names(text: str) -> None:
    seen: set[str] = set()
    for number, policy in enumerate(
        json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values(), 1
    ):
        name = (policy.get("annotations") or {}).get("id")
        if not name:
            raise InvalidArgument(
                "policies", f'policy {number} has no name; put @id("name") before it'
            )
        if name in seen or name.startswith(("builtin.", "grants/")):
            raise InvalidArgument("policies", f"the name {name} is taken; give each policy its own")
        seen.add(name)


def _line(text: str) -> str:
    """Return an error of the parser as one line of bounded length."""
    return " ".join(text.split())[:500]
