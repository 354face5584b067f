"""Why somebody may not do something, in words that say what to do about it."""

from __future__ import annotations

from privyseald.model import fields
from privyseald.model.errors import FailedPrecondition, PermissionDenied
from privyseald.model.policy import PERMISSIONS, Action, Caller, Decision, Query, covers


def _target(app: str) -> str:
    return "all apps" if app == fields.ALL_APPS else f"apps/{app}"


def denied(caller: Caller, query: Query, decision: Decision) -> PermissionDenied:
    """Return why a caller may not, and who could change that."""
    what = f"{query.action} on {_target(query.app)}"
    if not query.bound:
        return PermissionDenied(
            f"this session is for apps/{caller.session_app} and the bundles that it named, not "
            f"for {what}; exchange another identity token",
            reason="SESSION_BOUND",
        )
    may = any(query.action in PERMISSIONS[g.role] and covers(g, query.app) for g in caller.grants)
    # The daemon's own policies narrow what roles give: of who has no role, they are not the reason.
    if may or not all(policy.startswith("builtin.") for policy in decision.policies):
        return PermissionDenied(
            f"{what} is forbidden to {caller.principal} by policy {', '.join(decision.policies)}",
            reason="POLICY_FORBIDS",
        )
    unmet = {g.mismatch(caller.attributes) for g in caller.grants} - {""}
    if unmet:
        return PermissionDenied(
            f"{caller.principal} has no grant for {what} with its {', '.join(sorted(unmet))}; "
            "ask an admin for one",
            reason="NO_GRANT",
        )
    return PermissionDenied(
        f"{caller.principal} has no grant for {what}; ask an admin for one", reason="NO_GRANT"
    )


def needs_approval(
    action: Action, app: str, subject: str, decision: Decision, needed: int
) -> FailedPrecondition:
    """Return how to ask for the consent that an act takes."""
    count = f" --needed {needed}" if needed > 1 else ""
    return FailedPrecondition(
        f"policy {', '.join(decision.policies)} asks for the consent of others; ask with: "
        f"privyseal approval request --action {action} --app-id {app} --subject '{subject}'"
        f"{count} --reason 'WHY'",
        reason="APPROVAL_REQUIRED",
    )


def needs_window(app: str, decision: Decision) -> FailedPrecondition:
    """Return how to ask for the window that signing takes."""
    return FailedPrecondition(
        f"policy {', '.join(decision.policies)} asks for a signing window; ask for one with: "
        f"privyseal approval window --app-id {app} --reason 'WHY'",
        reason="WINDOW_REQUIRED",
    )
