"""Makes people notice: a loud line in the daemon's log, and metrics."""

from __future__ import annotations

import structlog
from prometheus_client import Counter, Gauge

from privyseald.model.approvals import Approval

_BREAK_GLASS = Counter("privyseal_break_glass_total", "Emergencies, by what happened.", ["what"])
_ENDS = Gauge(
    "privyseal_break_glass_ends_timestamp_seconds",
    "When the last emergency that was opened ends, seconds since 1970; 0 if there was none.",
)


class LoudAlarm:
    """Tells the log and the metrics."""

    def __init__(self) -> None:
        for what in ("requested", "opened"):
            _BREAK_GLASS.labels(what)

    def certificate_ends(self, key: str, ends: int, error: str) -> None:
        """Tell of a certificate that ends soon; see the port."""
        structlog.get_logger("alarm").critical(
            "CERTIFICATE ENDS and its key was not rotated, or what is deployed was not signed "
            "again: finish its rotation, resume its versions, its root and the statement key",
            key=key,
            ends=ends,
            error=error,
        )

    def break_glass(self, what: str, approval: Approval) -> None:
        """Tell of an emergency; see the port."""
        _BREAK_GLASS.labels(what).inc()
        if what == "opened":
            _ENDS.set(approval.expires_at)
        structlog.get_logger("alarm").critical(
            f"BREAK GLASS {what}",
            approval=approval.name,
            requester=approval.requester,
            approvers=approval.approvers,
            role=approval.role,
            resource=f"apps/{approval.app}",
            reason=approval.reason,
            expires=approval.expires_at,
        )
