"""The entry of `privyseal`; answers --version before anything heavy is imported."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--version"]:
        from privyseal._version import __version__

        sys.stdout.write(f"privyseal, version {__version__}\n")
        return
    # What a CI system sends when a job is cancelled; it leaves as little behind as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from privyseal.cli.main import run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("privyseal: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
