"""Makes people notice: a loud line in the daemon's log, and metrics."""

from __future__ import annotations

import time

import structlog
from prometheus_client import Counter, Gauge

from privyseald.model.approvals import Approval
from privyseald.model.errors import explain

_BREAK_GLASS = Counter("privyseal_break_glass_total", "Emergencies, by what happened.", ["what"])
_ENDS = Gauge(
    "privyseal_break_glass_ends_timestamp_seconds",
    "When the last emergency that was opened ends, seconds since 1970; 0 if there was none.",
)


_FAILED = Counter(
    "privyseal_duties_failed_total", "What was due and could not be done, by what it was.", ["duty"]
)
_AGAIN = 600.0
"""Seconds before the log tells anew of a duty that fails in the same way."""
_MOST_TOLD = 1000


class LoudAlarm:
    """Tells the log and the metrics."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], float] = {}
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

    def duty_failed(self, duty: str, error: Exception, of: str = "") -> None:
        """Tell of what could not be done; see the port."""
        _FAILED.labels(duty).inc()
        told, now = (duty, of, explain(error)), time.monotonic()
        if now - self._told.get(told, -_AGAIN) < _AGAIN:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told.clear()
        self._told[told] = now
        structlog.get_logger("alarm").error(
            "what was due could not be done; it is tried again", duty=duty, of=of, error=told[2]
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
