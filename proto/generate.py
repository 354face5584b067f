"""Generate the Python code of the protos; `--check` fails if what is committed is stale.

The generated code is committed: a generator run at install time could be newer than the
protobuf runtime it meets, and then fails at import.
"""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
#: Proto package -> where its Python package root is, and whether it has services.
PACKAGES = {
    "privyseal/v1": (ROOT / "client", True),
    "privyseald/keyholder/v1": (ROOT / "server", False),
}


def generate(package: str, out: Path, *, services: bool) -> None:
    """Run protoc for one package into `out`."""
    sources = sorted(str(path) for path in (PROTO / package).glob("*.proto"))
    arguments = [
        f"--proto_path={PROTO}",
        f"--proto_path={files('grpc_tools') / '_proto'}",
        # google/rpc, from googleapis-common-protos.
        f"--proto_path={Path(status_pb2.__file__).parents[2]}",
        f"--python_out={out}",
        f"--mypy_out={out}",
    ]
    if services:
        arguments += [f"--grpc_python_out={out}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *arguments, *sources]
    # The plugins lie beside the interpreter, and report what they write.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    run = subprocess.run(  # noqa: S603 - our own sources
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    if run.returncode != 0 or "warning:" in run.stderr:
        sys.exit(f"protoc is not content with {package}:\n{run.stderr}")
    for stray in out.rglob("*_pb2_grpc.py"):
        if "service" not in stray.name:
            stray.unlink()
    (out / package / "__init__.py").write_text('"""Generated from proto/; do not edit."""\n')


def main() -> int:
    """Generate or check, by `sys.argv`."""
    check = "--check" in sys.argv[1:]
    stale: list[str] = []
    for package, (root, services) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch)
            generate(package, out, services=services)
            fresh = out / package
            target = root / package
            names = sorted(path.name for path in fresh.iterdir())
            if check:
                committed = sorted(p.name for p in target.iterdir() if p.suffix in {".py", ".pyi"})
                _, differing, missing = filecmp.cmpfiles(fresh, target, names, shallow=False)
                stale += [f"{package}/{name}" for name in (*differing, *missing)]
                stale += [f"{package}/{name}" for name in set(committed) - set(names)]
                continue
            target.mkdir(parents=True, exist_ok=True)
            for old in target.glob("*_pb2*"):
                old.unlink()
            for name in names:
                (target / name).write_bytes((fresh / name).read_bytes())
    if stale:
        sys.stderr.write("stale generated code, run `make proto`: " + ", ".join(stale) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
