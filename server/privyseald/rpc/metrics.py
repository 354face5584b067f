"""What the gRPC edge counts."""

from __future__ import annotations

from prometheus_client import Counter

CALLS = Counter("privyseal_calls_total", "gRPC calls, by method.", ["method"])
ERRORS = Counter(
    "privyseal_errors_total", "gRPC calls that failed, by the reason given.", ["reason"]
)
