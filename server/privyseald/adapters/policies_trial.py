"""Tries policies in a process of their own, before the daemon's reads them.

Cedar's parser recurses once a level of nesting and once an operator of a chain, and overflows
the stack on texts that are well within the limit of length. A process that dies of that takes
nothing with it; and who compiled with an eighth of the daemon's stack leaves it room.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading

from privyseald.adapters.policies_cedar import CedarPolicies
from privyseald.model.errors import InvalidArgument
from privyseald.model.policy import Action, Caller, Query

_STACK = 1024 * 1024
"""Bytes; the daemon's threads have eight times as many."""
_SECONDS = 10
_MEMORY = 2 << 30


def try_out(text: str, approvals: int) -> None:
    """Compile and ask policies in another process.

    Args:
        text: The team's policies.
        approvals: As for `CedarPolicies`.

    Raises:
        InvalidArgument: If they are wrong, or nested too deeply to be read.
    """
    try:
        ended = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [sys.executable, "-P", "-m", "privyseald.adapters.policies_trial", str(approvals)],
            input=text.encode(errors="replace"),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
        told = json.loads(ended.stdout) if ended.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        told = None
    if told is None:
        raise InvalidArgument(
            "policies", "are nested too deeply, or too long, to be read; use several policies"
        )
    if told:
        raise InvalidArgument("policies", told)


def _try(text: str, approvals: int, told: list[str]) -> None:
    try:
        decider = CedarPolicies(approvals).compile(text).decider(Caller("token:trial"))
        for action in Action:
            decider.decide(Query(action, "trial"))
    except InvalidArgument as error:
        told.append(error.message.removeprefix("policies: "))
    else:
        told.append("")


def main() -> int:
    """Read policies on standard input; say what is wrong with them, or nothing."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    text, told = sys.stdin.buffer.read().decode(), list[str]()
    threading.stack_size(_STACK)
    thread = threading.Thread(target=_try, args=(text, int(sys.argv[1]), told))
    thread.start()
    thread.join()
    if not told:
        return 1
    print(json.dumps(told[0]))  # noqa: T201 - to the daemon
    return 0


if __name__ == "__main__":
    sys.exit(main())
