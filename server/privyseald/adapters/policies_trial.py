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
from privyseald.model.errors import InvalidArgument, Unavailable
from privyseald.model.policy import Action, Caller, Query

STACK = 8 << 20
"""Bytes that each of the daemon's threads has."""
_TRIAL_STACK = STACK // 8
_DEEP = "are nested too deeply, or too long, to be read; use several policies"
_SECONDS = 10
_MEMORY = 2 << 30


def try_out(text: str, approvals: int) -> None:
    """Compile and ask policies in another process.

    Args:
        text: The team's policies.
        approvals: As for `CedarPolicies`.

    Raises:
        InvalidArgument: If they are wrong, or nested too deeply to be read.
        Unavailable: If there is no process to be had.
    """
    try:
        ended = subprocess.run(  # noqa: S603 - a fixed command, no shell
            [sys.executable, "-P", "-m", "privyseald.adapters.policies_trial", str(approvals)],
            input=text.encode(errors="replace"),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidArgument("policies", "take too long to be read; write fewer") from None
    except OSError:
        raise _untried() from None
    if ended.returncode > 0:
        raise _untried()
    # A signal ended it: the stack was too small, or the memory.
    told = json.loads(ended.stdout) if ended.returncode == 0 else _DEEP
    if told:
        raise InvalidArgument("policies", told)


def _untried() -> Unavailable:
    return Unavailable("policies cannot be tried now; try again", reason="POLICIES_UNTRIED")


def _try(text: str, approvals: int, told: list[str]) -> None:
    try:
        decider = CedarPolicies(approvals).compile(text).decider(Caller("token:trial"))
        for action in Action:
            decider.decide(Query(action, "trial"))
    except InvalidArgument as error:
        told.append(error.message.removeprefix("policies: "))
    except RecursionError:
        told.append(_DEEP)
    else:
        told.append("")


def main() -> int:
    """Read policies on standard input; say what is wrong with them, or nothing."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    text, told = sys.stdin.buffer.read().decode(), list[str]()
    threading.stack_size(_TRIAL_STACK)
    thread = threading.Thread(target=_try, args=(text, int(sys.argv[1]), told))
    thread.start()
    thread.join()
    if not told:
        return 1
    print(json.dumps(told[0]))  # noqa: T201 - to the daemon
    return 0


if __name__ == "__main__":
    sys.exit(main())
