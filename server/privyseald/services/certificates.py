"""Makes key versions together with the certificates that their devices want."""

from __future__ import annotations

from dataclasses import replace

from privyseald.model.errors import FailedPrecondition
from privyseald.model.lifecycle import DAY
from privyseald.model.records import KeyVersionRecord
from privyseald.model.schemes import (
    Certified,
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    KeyVersionState,
    Scheme,
)
from privyseald.ports import Clock, Keyholder, Store, View

CERTIFIED = frozenset({Scheme.EXPO_V1, Scheme.EXPO_ROOT_V1})
EMBEDDED_DAYS = 25 * 365
"""A certificate that binaries embed: devices compare its end with their clock, at each update."""
LEAF_DAYS = 90
"""One that a root issues, which devices are sent; another key takes over long before its end."""
_BACKDATED = DAY
_OFF = frozenset({KeyVersionState.SUSPENDED, KeyVersionState.DESTROY_SCHEDULED})


class CertifiedKeys:
    """Has key pairs made, and certificates for those that need one.

    Of an app with an `expo-root-v1` key whose primary is active, that issues those of `expo-v1`
    versions; of others they are self-signed.
    """

    def __init__(self, store: Store, keyholder: Keyholder, clock: Clock) -> None:
        self._store = store
        self._keyholder = keyholder
        self._clock = clock

    async def generate(
        self,
        identity: KeyIdentity,
        place: KeyPlace = KeyPlace(),  # noqa: B008 - frozen
    ) -> GeneratedKey:
        """Make or take a key pair; see `Keyholder`."""
        return await self._certified(await self._keyholder.generate(identity, place))

    async def import_key(
        self, identity: KeyIdentity, sealed: bytes, *, token: bool
    ) -> GeneratedKey:
        """Take a private key; see `Keyholder`."""
        made = await self._keyholder.import_key(identity, sealed, token=token)
        return await self._certified(made)

    async def _certified(self, made: GeneratedKey) -> GeneratedKey:
        identity = made.wrapped.identity
        if identity.scheme not in CERTIFIED:
            return made
        root: KeyVersionRecord | None = None
        if identity.scheme is Scheme.EXPO_V1:
            root = await self._store.read(lambda view: _root(view, identity.app))
        subject = (made.wrapped, made.public_key)
        issuer = subject if root is None else (root.wrapped, root.public_key)
        now = self._clock()
        ends = now + (EMBEDDED_DAYS if root is None else LEAF_DAYS) * DAY
        if root is not None:
            # What outlives its issuer is refused by devices.
            ends = min(ends, root.certificate_ends)
        # Devices whose clock is late take it, too.
        begins = now - _BACKDATED
        certificate = await self._keyholder.issue_certificate(subject, issuer, begins, ends)
        anchor = b"" if root is None else root.public_key_sha256
        return replace(made, certified=Certified(certificate, ends, anchor))


def _root(view: View, app: str) -> KeyVersionRecord | None:
    """Return the version that issues an app's certificates, None if there is none.

    Raises:
        FailedPrecondition: If it does not sign now, and may yet.
    """
    key = next((k for k in view.keys.list(app) if k.scheme is Scheme.EXPO_ROOT_V1), None)
    root = key.version(key.primary) if key is not None else None
    if root is None or root.state is KeyVersionState.ACTIVE:
        return root
    if root.state in _OFF:
        raise FailedPrecondition(
            f"{root.name} is {root.state} and issues no certificate; a security officer must "
            "resume or restore it (`privyseal key resume`, `privyseal key restore`)",
            reason="KEY_NOT_ACTIVE",
        )
    # Given up: binaries that trust it wait for the store, and later ones embed another.
    return None
