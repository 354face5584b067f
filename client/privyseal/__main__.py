"""The entry of `privyseal`; answers --version before anything heavy is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["--version"]:
        from privyseal._version import __version__

        sys.stdout.write(f"privyseal, version {__version__}\n")
        return
    from privyseal.cli.main import run

    run()


if __name__ == "__main__":
    main()
