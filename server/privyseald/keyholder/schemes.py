"""What a key of each scheme signs of a release; built here, from typed content alone."""

from __future__ import annotations

from collections.abc import Callable

from privyseal.verify import expo, schemes
from privyseal.verify.statement import PAYLOAD_TYPE, Statement, pae

from privyseald.keyholder.keystore import KeyUnusableError, Signer
from privyseald.model.schemes import Scheme

Sign = Callable[[Signer, Statement, bytes], bytes]


def _capawesome(signer: Signer, statement: Statement, _: bytes) -> bytes:
    return signer.sign_rsa_digest(statement.bundle_sha256)


def _capgo(signer: Signer, statement: Statement, _: bytes) -> bytes:
    session = schemes.capgo_session(statement.bundle_sha256)
    return signer.sign_rsa_bare(statement.bundle_sha256) + signer.sign_rsa_bare(session.key)


def _codepush(signer: Signer, statement: Statement, _: bytes) -> bytes:
    if not statement.codepush_sha256:
        raise KeyUnusableError("codepush-v1 needs the package hash")
    return signer.sign(schemes.codepush_input(statement))


def _minisign(signer: Signer, statement: Statement, _: bytes) -> bytes:
    if not statement.bundle_blake2b:
        raise KeyUnusableError("minisign needs the BLAKE2b digest")
    signature = signer.sign(statement.bundle_blake2b)
    return signature + signer.sign(signature + schemes.minisign_comment(statement))


def _expo(signer: Signer, statement: Statement, _: bytes) -> bytes:
    if statement.expo is None or not statement.expo.updates:
        raise KeyUnusableError("expo-v1 needs an update")
    return b"".join(
        signer.sign(expo.manifest(statement, update.platform)) for update in statement.expo.updates
    )


def _statement(signer: Signer, _: Statement, payload: bytes) -> bytes:
    return signer.sign(pae(PAYLOAD_TYPE, payload))


#: Scheme -> what signs a release with a key of it, besides the statement's own key.
SIGN: dict[Scheme, Sign] = {
    # Another version of the statement's key, for who trusts no newer one.
    Scheme.STATEMENT_V1: _statement,
    Scheme.CAPAWESOME_V1: _capawesome,
    Scheme.CAPGO_V2: _capgo,
    Scheme.CODEPUSH_V1: _codepush,
    Scheme.MINISIGN: _minisign,
    Scheme.STATEMENT_ML_DSA_V1: _statement,
    Scheme.EXPO_V1: _expo,
}
