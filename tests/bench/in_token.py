"""The rates of keys in a token, beside what its module does on threads of its own."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from tests.conftest import Daemon
from tests.softhsm import MODULE, SoftHsm

ALGORITHMS = ("RSA_2048", "P256")


def sign_raw(algorithm: str, label: str, pin: str, seconds: float) -> float:
    """Sign in the token and nothing else; return signatures per second."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    session = pkcs11.lib(MODULE).get_token(token_label=label).open(user_pin=pin, rw=True)
    if algorithm == "P256":
        curve = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        made = session.create_domain_parameters(pkcs11.KeyType.EC, curve, local=True)
        _, key = made.generate_keypair()
        mechanism, data = pkcs11.Mechanism.ECDSA, b"d" * 32
    else:
        _, key = session.generate_keypair(pkcs11.KeyType.RSA, 2048)
        mechanism, data = pkcs11.Mechanism.RSA_PKCS, b"d" * 51
    done, end = 0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(20):
            key.sign(data, mechanism=mechanism)
        done += 20
    return done / seconds


def raw_rate(algorithm: str, token: SoftHsm, seconds: float) -> float:
    """Return what the module does on all cores: a process each, as the module has no locks."""
    cores = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        asked = (algorithm, token.label, token.pin, seconds)
        return sum(pool.starmap(sign_raw, [asked] * cores))


async def signing(results: dict, scratch: Path, seconds: float, load) -> None:
    """Add the rows of keys in a token.

    Args:
        results: Where they go.
        scratch: A folder.
        seconds: For how long each is measured.
        load: The module with `make_app`, `rate` and `batches`.
    """
    token = SoftHsm(scratch / "hsm")
    os.environ |= {"SOFTHSM2_CONF": str(token.conf)}
    daemon = Daemon(scratch / "data", own_interpreter=True)
    daemon.settings += token.settings().replace(token.module, MODULE)
    daemon.init()
    daemon.start()
    try:
        for algorithm in ALGORITHMS:
            raw = raw_rate(algorithm, token, seconds)
            port = daemon.ports[1]
            app = await load.make_app(daemon.data, port, algorithm, in_token=True)
            for callers in (1, 16, 64):
                per_s, p50, p99 = await load.rate(daemon.data, port, app, callers)
                row = {"what": f"{algorithm} token", "callers": callers, "per_s": per_s}
                row |= {"p50_ms": p50, "p99_ms": p99, "raw_per_s": raw, "of_raw": per_s / raw}
                results["signing"].append(row)
            row = await load.batches(daemon.data, port, app, 2)
            row |= {"what": f"{algorithm} token x 100", "raw_per_s": raw}
            results["signing"].append(row | {"of_raw": row["per_s"] / raw})
    finally:
        daemon.stop()
