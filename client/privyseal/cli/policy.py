"""`privyseal policy`: the team's policies."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from privyseal.cli.common import (
    ON,
    PATH,
    Output,
    command,
    connect,
    pairs,
    read_text,
    role_number,
    time_text,
)
from privyseal.errors import ClientError

commands = click.Group("policy", help="The team's policies: apply, test, explain.")
_CASE = {
    *("name", "principal", "attributes", "grants", "action", "app", "channel", "approvals"),
    *("window", "unbound", "expect", "policy"),
}
_GRANT = {"role", "app", "conditions"}


@command(commands, "apply")
@click.argument("file", type=PATH)
def apply(out: Output, file: Path) -> None:
    """Put the policies of a file in force; what is wrong is refused, and the old ones stay.

    Example: privyseal policy apply policies.cedar
    """
    from privyseal.v1 import policy_service_pb2 as pb

    text = read_text(file, "policies")
    with connect() as to:
        current = to.call(to.policies.GetPolicies, pb.GetPoliciesRequest()).policies
        request = pb.ApplyPoliciesRequest(text=text, replaces=current.name)
        made = to.call(to.policies.ApplyPolicies, request).policies
    out.done({"policies": made.name, "replaced": current.name}, f"{made.name} are in force")


@command(commands, "show")
@click.argument("name", default="")
@click.option("--schema", is_flag=True, help="Show the Cedar schema instead.")
@click.option("--builtin", is_flag=True, help="Show the built-in policies instead.")
def show(out: Output, name: str, *, schema: bool, builtin: bool) -> None:
    """Show the policies in force, or an earlier version.

    Example: privyseal policy show policies/3
    """
    from privyseal.v1 import policy_service_pb2 as pb

    with connect() as to:
        found = to.call(to.policies.GetPolicies, pb.GetPoliciesRequest(name=name))
    policies = found.policies
    text = found.schema if schema else found.builtin if builtin else policies.text
    if policies.principal:
        when = time_text(policies.create_time)
        out.note(f"{policies.name}, put in force by {policies.principal} at {when}")
    else:
        out.note("no policies of the team are in force, only the built-in ones")
    values = {"schema": found.schema, "builtin": found.builtin, "text": policies.text}
    out.done({"policies": policies.name, **values}, text.rstrip())


@command(commands, "test")
@click.argument("cases", type=PATH)
@click.option("--policies", type=PATH, help="Policies to try instead of those in force.")
def test(out: Output, cases: Path, policies: Path | None) -> None:
    """Run cases from a YAML file; fails if one does not come out as expected.

    Each case has name, principal, action, app and expect (allow or deny); and may have
    policy (which must decide), attributes, grants, channel, approvals, window and unbound.

    Example: privyseal policy test cases.yaml --policies policies.cedar
    """
    from privyseal.v1 import policy_service_pb2 as pb

    listed = _load_cases(cases)
    request = pb.EvaluatePoliciesRequest(cases=[_case(case) for case in listed])
    if policies is not None:
        request.text = read_text(policies, "policies")
    with connect() as to:
        answers = to.call(to.policies.EvaluatePolicies, request).answers
    rows = [_judge(case, answer) for case, answer in zip(listed, answers, strict=True)]
    failed = [row for row in rows if not row["ok"]]
    lines = [
        f"{'ok  ' if r['ok'] else 'FAIL'}  {r['name']}"
        + ("" if r["ok"] else f": expected {r['expected']}, got {r['got']}")
        for r in rows
    ]
    summary = f"{len(rows) - len(failed)} of {len(rows)} cases came out as expected"
    out.done({"cases": rows, "failed": len(failed)}, *lines, summary)
    if failed:
        sys.exit(1)


@command(commands, "explain")
@ON
@click.option("--principal", required=True, help="Who asks.")
@click.option("--action", required=True, help="For what, such as release.sign.")
@click.option("--attribute", multiple=True, help="What a workload's token says: NAME=VALUE.")
@click.option("--channel", default="", help="For release.deploy.")
@click.option("--approvals", default=0, help="How many people consented.")
@click.option("--window", is_flag=True, help="A signing window is open.")
@click.option("--policies", type=PATH, help="Policies to try instead of those in force.")
def explain(
    out: Output,
    app_id: str,
    attribute: tuple[str, ...],
    policies: Path | None,
    **values: Any,
) -> None:
    """Say why a call is allowed or denied, and by which policy.

    Example: privyseal policy explain --principal workload:github:456789 --app-id 042a1261
    --action release.sign --attribute ref=refs/heads/main
    """
    from privyseal.v1 import policy_service_pb2 as pb

    attributes = pairs(attribute, "--attribute")
    case = pb.PolicyCase(resource=f"apps/{app_id}", attributes=attributes, **values)
    request = pb.EvaluatePoliciesRequest(cases=[case])
    if policies is not None:
        request.text = read_text(policies, "policies")
    with connect() as to:
        answer = to.call(to.policies.EvaluatePolicies, request).answers[0]
    lines = [_verdict(answer)]
    lines += [
        f"{grant} does not apply: it asks for another {name}"
        for grant, name in sorted(answer.unmet.items())
    ]
    out.done(
        {
            "allowed": answer.allowed,
            "policies": list(answer.policies),
            "unmet": dict(answer.unmet),
        },
        *lines,
    )


def _verdict(answer: Any) -> str:
    by = ", ".join(answer.policies)
    if answer.allowed:
        return f"allowed by {by}"
    return f"denied by {by}" if by else "denied: nothing allows it"


def _load_cases(path: Path) -> list[dict[str, Any]]:
    import yaml

    try:
        value = yaml.safe_load(read_text(path, "cases"))
    except yaml.YAMLError as error:
        raise ClientError(f"{path} is not YAML: {error}") from None
    listed = value.get("cases") if isinstance(value, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ClientError(f"{path} has no list `cases`")
    for number, case in enumerate(listed, 1):
        _check_case(case, f"{path}, case {number}")
    return listed


def _check_case(case: Any, where: str) -> None:
    if not isinstance(case, dict):
        raise ClientError(f"{where} is not a mapping")
    if unknown := set(case) - _CASE:
        raise ClientError(f"{where} has unknown {', '.join(sorted(map(str, unknown)))}")
    for name in ("principal", "action", "app", "expect"):
        if not isinstance(case.get(name), str):
            raise ClientError(f"{where} needs {name}, a text")
    if case["expect"] not in {"allow", "deny"}:
        raise ClientError(f"{where}: expect must be allow or deny")
    grants = case.get("grants", [])
    if not isinstance(grants, list) or any(
        not isinstance(g, dict) or set(g) - _GRANT or "role" not in g for g in grants
    ):
        raise ClientError(f"{where}: each of grants has role, and may have app and conditions")


def _case(case: dict[str, Any]) -> Any:
    from privyseal.v1 import policy_service_pb2 as pb

    try:
        return pb.PolicyCase(
            principal=case["principal"],
            action=case["action"],
            resource=f"apps/{case['app']}",
            attributes=case.get("attributes", {}),
            channel=case.get("channel", ""),
            approvals=case.get("approvals", 0),
            window=case.get("window", False),
            unbound=case.get("unbound", False),
            grants=[
                pb.SupposedGrant(
                    role=role_number(grant["role"]),
                    resource=f"apps/{grant.get('app', case['app'])}",
                    conditions=grant.get("conditions", {}),
                )
                for grant in case.get("grants", [])
            ],
        )
    except (TypeError, ValueError) as error:
        raise ClientError(f"case {case.get('name', '?')}: {error}") from None


def _judge(case: dict[str, Any], answer: Any) -> dict[str, Any]:
    got = "allow" if answer.allowed else "deny"
    expected, by = case["expect"], case.get("policy", "")
    ok = got == expected and (not by or by in answer.policies)
    decided = ", ".join(answer.policies) or "nothing"
    return {
        "name": case.get("name") or f"{case['principal']} {case['action']} {case['app']}",
        "ok": ok,
        "expected": f"{expected} by {by}" if by else expected,
        "got": f"{got} by {decided}",
    }
