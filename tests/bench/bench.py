"""`make bench`: rates and ratios of one run, as a table and as build/bench.json.

Every rate of a daemon stands beside what its parts can do on this machine in the same run:
the raw signing rate of pyca (or of the token's module) on all cores, and the rate of a bare
grpcio server with TLS whose handler does nothing, under the same load generator.

"of bound" compares with what no daemon on these cores can exceed that keeps the promises: each
signature is verified, each release has a signed statement, and a call costs what an empty one
does. It is made of rates that are measured here, too.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import grpc
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from privyseal.v1 import app_service_pb2 as app_pb
from privyseal.v1 import app_service_pb2_grpc as app_grpc
from privyseal.v1 import key_service_pb2 as key_pb
from privyseal.v1 import key_service_pb2_grpc as key_grpc
from privyseal.v1 import signing_service_pb2 as pb
from privyseal.v1 import signing_service_pb2_grpc as signing_grpc
from privyseal.v1 import types_pb2

from tests.bench import in_token
from tests.conftest import Daemon, free_port

SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
ALGORITHMS = ("RSA_2048", "RSA_3072", "P256", "ED25519")


def sign_raw(algorithm: str, seconds: float) -> float:
    from privyseald.keyholder.keystore import LoadedKey, _new_private_key
    from privyseald.model.schemes import Algorithm

    key = LoadedKey(_new_private_key(Algorithm(algorithm.lower().replace("_", "-"))))._private
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding

    if algorithm.startswith("RSA"):
        arguments = (padding.PKCS1v15(), hashes.SHA256())
    else:
        arguments = (ec.ECDSA(hashes.SHA256()),) if algorithm == "P256" else ()
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            key.sign(b"m" * 64, *arguments)
        done += 20
    return done / seconds


def sign_release_alone(algorithm: str, seconds: float) -> float:
    """Sign and verify what a release must have signed, and do nothing else."""
    from privyseald.keyholder.keystore import LoadedKey, _new_private_key
    from privyseald.model.schemes import Algorithm

    def key(name: str) -> LoadedKey:
        return LoadedKey(_new_private_key(Algorithm(name)))

    keys = [key(algorithm.lower().replace("_", "-"))]
    if algorithm.startswith("RSA"):
        keys.append(key("ed25519"))
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            for each in keys:
                each.sign(b"m" * 700)
        done += 20
    return done / seconds


def on_all_cores(work, algorithm: str) -> float:
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.starmap(work, [(algorithm, SECONDS / 2)] * cores))


async def null_server(port: int, data: Path) -> None:
    class Null(signing_grpc.SigningServiceServicer):
        async def SignRelease(self, request, context):  # noqa: N802
            return pb.SignReleaseResponse()

    server = grpc.aio.server()
    signing_grpc.add_SigningServiceServicer_to_server(Null(), server)
    pair = ((data / "tls/server.key").read_bytes(), (data / "tls/server.pem").read_bytes())
    credentials = grpc.ssl_server_credentials(
        [pair], (data / "tls/ca.pem").read_bytes(), require_client_auth=True
    )
    server.add_secure_port(f"127.0.0.1:{port}", credentials)
    await server.start()
    await server.wait_for_termination(300)


def channel(data: Path, port: int) -> grpc.aio.Channel:
    admin = data / "admin"
    parts = ("ca.pem", "client.key", "client.pem")
    credentials = grpc.ssl_channel_credentials(*((admin / part).read_bytes() for part in parts))
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials)


def request(app: str) -> pb.SignReleaseRequest:
    return pb.SignReleaseRequest(
        parent=f"apps/{app}",
        version=uuid.uuid4().hex,
        bundle_sha256=os.urandom(32),
        bundle_length=1,
        manifest_sha256=b"m" * 32,
        request_id=str(uuid.uuid4()),
    )


async def rate(data: Path, port: int, app: str, callers: int) -> tuple[float, float, float]:
    """Return calls per second, and the 50th and 99th percentile in milliseconds."""
    async with channel(data, port) as to:
        stub = signing_grpc.SigningServiceStub(to)
        await stub.SignRelease(request(app), wait_for_ready=True, timeout=20)
        took: list[float] = []
        end = time.perf_counter() + SECONDS

        async def call() -> None:
            while (start := time.perf_counter()) < end:
                await stub.SignRelease(request(app))
                took.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        elapsed = time.perf_counter() - start
    took.sort()
    return len(took) / elapsed, took[len(took) // 2] * 1e3, took[len(took) * 99 // 100] * 1e3


async def batches(data: Path, port: int, app: str, callers: int) -> dict:
    """Return releases per second in batches of 100, and percentiles of a batch."""
    async with channel(data, port) as to:
        stub = signing_grpc.SigningServiceStub(to)
        took: list[float] = []
        end = time.perf_counter() + SECONDS

        async def call() -> None:
            while (start := time.perf_counter()) < end:
                batch = pb.SignReleasesRequest(releases=[request(app) for _ in range(100)])
                answer = await stub.SignReleases(batch)
                assert all(result.HasField("signed") for result in answer.results)
                took.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        elapsed = time.perf_counter() - start
    took.sort()
    return {
        "callers": callers,
        "per_s": 100 * len(took) / elapsed,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
    }


async def make_app(data: Path, port: int, algorithm: str, *, in_token: bool = False) -> str:
    """Make an app whose releases take one signature of the algorithm; RSA beside Ed25519."""
    app = algorithm.lower().replace("_", "-")
    rsa = algorithm.startswith("RSA")
    async with channel(data, port) as to:
        await app_grpc.AppServiceStub(to).CreateApp(
            app_pb.CreateAppRequest(
                app_id=app,
                statement_algorithm="ALGORITHM_ED25519" if rsa else f"ALGORITHM_{algorithm}",
                in_token=in_token and not rsa,
                request_id=str(uuid.uuid4()),
            )
        )
        if rsa:
            await key_grpc.KeyServiceStub(to).CreateKey(
                key_pb.CreateKeyRequest(
                    parent=f"apps/{app}",
                    scheme=types_pb2.SCHEME_CAPAWESOME_V1,
                    algorithm=f"ALGORITHM_{algorithm}",
                    in_token=in_token,
                    request_id=str(uuid.uuid4()),
                )
            )
    return app


async def signing(results: dict) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        daemon = Daemon(Path(scratch) / "data", own_interpreter=True)
        daemon.init()
        daemon.start()
        null_port = free_port()
        null = subprocess.Popen(  # noqa: ASYNC220 - before any load
            [sys.executable, __file__, "null", str(null_port), daemon.data]
        )
        try:
            for callers in (1, 16, 64):
                calls, p50, p99 = await rate(daemon.data, null_port, "x", callers)
                row = {"what": "null RPC", "callers": callers, "per_s": calls}
                results["signing"].append({**row, "p50_ms": p50, "p99_ms": p99})
            null.kill()
            idle = {r["callers"]: r["per_s"] for r in results["signing"]}
            for algorithm in ALGORITHMS:
                raw = on_all_cores(sign_raw, algorithm)
                alone = on_all_cores(sign_release_alone, algorithm)
                # A core's time for the signatures, and for a call with nothing in it.
                bound = 1 / (1 / alone + 1 / idle[64])
                app = await make_app(daemon.data, daemon.ports[1], algorithm)
                for callers in (1, 16, 64):
                    calls, p50, p99 = await rate(daemon.data, daemon.ports[1], app, callers)
                    results["signing"].append(
                        {
                            "what": algorithm,
                            "callers": callers,
                            "per_s": calls,
                            "p50_ms": p50,
                            "p99_ms": p99,
                            "raw_per_s": raw,
                            "of_raw": calls / raw,
                            "of_null": calls / idle[callers],
                            "of_bound": calls / bound,
                        }
                    )
                for callers in (1, 2):
                    row = await batches(daemon.data, daemon.ports[1], app, callers)
                    row |= {"what": f"{algorithm} x 100", "raw_per_s": raw}
                    shares = {"of_raw": row["per_s"] / raw, "of_bound": row["per_s"] / alone}
                    results["signing"].append(row | shares)
        finally:
            null.kill()
            null.wait()
            daemon.stop()


async def authorisation(results: dict) -> None:
    """Time what a signature's authorisation takes in the daemon's own process.

    `again` is a caller that is known; `job` a new CI job, with its own session, of a workload
    that has signed before; `first` a workload that has never called, whose grants are read
    and linked and whose questions go to Cedar.
    """
    from privyseald.adapters.policies_cedar import CedarPolicies
    from privyseald.adapters.repositories import Db
    from privyseald.adapters.sql_engine import make_engine, migrate
    from privyseald.adapters.sql_transaction import SqlView
    from privyseald.model.policy import Action, Caller, Grant
    from privyseald.model.records import SessionRecord
    from privyseald.services.access import Access

    app, many = "a", 2_000
    team = "".join(
        f'@id("team.{n}") forbid (principal is Workload, action == Action::"release.sign", '
        f'resource == App::"app-{n}") unless {{ context.window || principal has ref }};\n'
        for n in range(20)
    )
    bundle = b"d" * 32
    with tempfile.TemporaryDirectory() as scratch:
        url = f"sqlite:///{scratch}/bench.db"
        migrate(url, lambda checkpoint: checkpoint.text(), "bench")
        engine = make_engine(url)
        with engine.begin() as connection:
            view = SqlView(Db(connection))
            policies = CedarPolicies(1).compile(team)
            callers = []
            for n in range(2 * many):
                principal = f"workload:github:{n if n < many else 0}"
                for role in ("signer", "releaser", "auditor") if n < many else ():
                    view.grants.add(Grant(f"{n}-{role}", principal, role, app))
                attributes = {"issuer": "github", "ref": "refs/heads/main", "run": str(n)}
                session = SessionRecord(
                    str(n), principal, b"", attributes | {"sha": f"{n:040x}"}, app, (bundle,), 1, 9
                )
                view.tokens.add_session(session)
                callers.append(Caller(principal, credential=str(n)))
            view = SqlView(Db(connection))
            access = Access(None, CedarPolicies(1), lambda: 1, None)
            access._compiled = (view.revision, 0, policies)

            async def timed(asking: list[Caller], *, known: bool = False) -> float:
                start = time.perf_counter()
                for caller in asking:
                    who = caller if known else access.again(view, caller, 1)
                    permit = await access.authorise(who, Action.RELEASE_SIGN, app, digest=bundle)
                    permit.check(view)
                return (time.perf_counter() - start) / len(asking) * 1e6

            took = {"first": await timed(callers[:many]), "job": await timed(callers[many:])}
            took["again"] = await timed([access.again(view, callers[0], 1)] * 20_000, known=True)
        engine.dispose()
    p256 = [r for r in results["signing"] if r["what"] == "P256"]
    busy = 1e6 / max(row["per_s"] for row in p256)
    alone = next(row["p50_ms"] for row in p256 if row["callers"] == 1) * 1e3
    results["authorisation"] = {
        "sign_busy_us": busy,
        "sign_alone_us": alone,
        **{f"{who}_us": us for who, us in took.items()},
        **{f"{who}_of_busy": us / busy for who, us in took.items()},
        **{f"{who}_of_alone": us / alone for who, us in took.items()},
    }


_MEASURE = """
import os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(status, time.perf_counter() - start, usage.ru_maxrss / 1000)
"""


def peak(command: list) -> tuple[float, float]:
    """Return seconds and peak memory in MB of a command.

    It is started from a small process: what a process counts as its peak begins with the
    size of the one that it was split off from.
    """
    told = subprocess.check_output([sys.executable, "-c", _MEASURE, *command], text=True)
    status, took, memory = told.split()
    assert status == "0", command
    return float(took), float(memory)


def bundling(results: dict) -> None:
    from tests.interop.conftest import package

    source = package("monaco-editor-0.57.0") / "min"
    with tempfile.TemporaryDirectory() as scratch:
        www = Path(scratch) / "www"
        copies = max(1, int(float(os.environ.get("BENCH_TREE_MB", "500")) / 25.5))
        for number in range(copies):
            subprocess.run(["cp", "-r", source, www if number == 0 else www / f"copy{number}"])
        (www / "index.html").write_text("x")
        size = sum(p.stat().st_size for p in www.rglob("*") if p.is_file())
        # Or else the first to be timed also writes the copies to the disk.
        os.sync()
        ours, theirs = Path(scratch) / "ours.zip", Path(scratch) / "theirs.zip"
        flags = ["--build-dir", www, "--output-path", ours, "--source-maps"]
        command = [sys.executable, "-m", "privyseal", "live-update", "bundle-artifact", *flags]
        took, memory = peak(command)
        os.chdir(www)
        zip_took, _ = peak(["zip", "-q", "-6", "-r", theirs, "."])
        os.chdir("/")
        results["bundling"] = {
            "tree_mb": size / 1e6,
            "mb_per_s": size / 1e6 / took,
            "zip_mb_per_s": size / 1e6 / zip_took,
            "times_zip": zip_took / took,
            "size_of_zip": ours.stat().st_size / theirs.stat().st_size,
            "peak_mb": memory,
        }


def start_up(results: dict) -> None:
    def median(*command: str) -> float:
        return sorted(peak([sys.executable, *command])[0] for _ in range(15))[7]

    bare, ours = median("-c", "pass"), median("-m", "privyseal", "--version")
    results["start_up"] = {"bare_ms": bare * 1e3, "ours_ms": ours * 1e3, "times": ours / bare}


def main() -> None:
    if sys.argv[1:2] == ["null"]:
        uvloop.run(null_server(int(sys.argv[2]), Path(sys.argv[3])))
        return
    target = Path(__file__).resolve().parents[2] / "build/bench.json"
    results: dict = {"signing": []}
    uvloop.run(signing(results))
    with tempfile.TemporaryDirectory() as scratch:
        uvloop.run(in_token.signing(results, Path(scratch), SECONDS / 2, sys.modules[__name__]))
    uvloop.run(authorisation(results))
    start_up(results)
    bundling(results)
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=2) + "\n")
    print(
        f"{'':<21}{'callers':>8}{'per s':>9}{'p50 ms':>9}{'p99 ms':>9}{'of raw':>8}{'of null':>9}"
        f"{'of bound':>10}"
    )
    for row in results["signing"]:
        names = ("of_raw", "of_null", "of_bound")
        shares = [f"{row[k]:>8.0%}" if k in row else f"{'':>8}" for k in names]
        print(
            f"{row['what']:<21}{row['callers']:>8}{row['per_s']:>9.0f}{row['p50_ms']:>9.1f}"
            f"{row['p99_ms']:>9.1f}{shares[0]} {shares[1]}  {shares[2]}"
        )
    for part in ("authorisation", "bundling", "start_up"):
        print(part, {name: round(value, 3) for name, value in results[part].items()})


if __name__ == "__main__":
    main()
