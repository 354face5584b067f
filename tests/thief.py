"""What runs beside the daemon as its user, and would read the keyholders' memory.

Run as `python -m tests.thief FOLDER`: has keyholders started one after the other, and tries from
the first moment of each to open its memory and its files. Prints what it could open, as JSON.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from privyseald.keyholder.custody import Custody
from privyseald.keyholder.custody_settings import CustodySettings

KEYHOLDERS = 8


def opened(pid: str) -> list[str]:
    """Return what of a process can be opened."""
    found = []
    for name in ("mem", "environ", *(f"fd/{n}" for n in range(12))):
        try:
            handle = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            # Of a process that is ending everything opens, and there is nothing in it.
            if name.startswith("fd/") or os.read(handle, 1):
                found.append(name)
        except OSError:
            found.append(name)
        finally:
            os.close(handle)
    return found


def main() -> None:
    control = subprocess.Popen(["/bin/sleep", "60"])
    sleeping = opened(str(control.pid))
    control.kill()
    control.wait()
    custody = Custody(CustodySettings(data=sys.argv[1]))
    custody.start()
    parent, stolen, seen, done = custody._process.pid, set[str](), set[str](), threading.Event()

    def steal() -> None:
        while not done.is_set():
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            for child in children:
                seen.add(child)
                stolen.update(opened(child))

    thread = threading.Thread(target=steal)
    thread.start()
    for _ in range(KEYHOLDERS):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = custody.spawn(theirs, token=False)
            ours.settimeout(20)
            assert ours.recv(65536)
        process.kill()
        process.wait()
    done.set()
    thread.join()
    custody.stop()
    print(json.dumps({"sleep": sleeping, "seen": len(seen), "stolen": sorted(stolen)}))


if __name__ == "__main__":
    main()
