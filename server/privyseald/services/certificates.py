"""Makes key versions together with the certificates that their devices want."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from privyseald.model.errors import DomainError, FailedPrecondition, Unavailable
from privyseald.model.lifecycle import DAY
from privyseald.model.records import KeyVersionRecord
from privyseald.model.schemes import (
    CertificateTerms,
    GeneratedKey,
    KeyIdentity,
    KeyPlace,
    KeyVersionState,
    Scheme,
    WrappedKey,
)
from privyseald.ports import Alarm, Clock, Keyholder, Store, View

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

    Args:
        store: The store.
        keyholder: Makes the key pairs.
        clock: Tells the time.
        alarm: Told of key pairs that stay where they are, though nobody has them.
        pauses: Seconds to wait before each further try to destroy such a key pair.
    """

    def __init__(
        self,
        store: Store,
        keyholder: Keyholder,
        clock: Clock,
        alarm: Alarm,
        pauses: Sequence[float] = (1, 2, 4),
    ) -> None:
        self._alarm = alarm
        self._pauses = pauses
        self._store = store
        self._keyholder = keyholder
        self._clock = clock

    async def generate(
        self,
        identity: KeyIdentity,
        place: KeyPlace = KeyPlace(),  # noqa: B008 - frozen
    ) -> GeneratedKey:
        """Make or take a key pair; see `KeyMaker`."""
        terms = await self.terms(identity, exists=bool(place.uri))
        return await self._keyholder.generate(identity, place, terms)

    async def import_key(
        self, identity: KeyIdentity, sealed: bytes, *, token: bool
    ) -> GeneratedKey:
        """Take a private key; see `KeyMaker`."""
        terms = await self.terms(identity, exists=True)
        return await self._keyholder.import_key(identity, sealed, token=token, certificate=terms)

    async def destroy_unless_kept(self, made: WrappedKey) -> None:
        """Destroy a key pair of which the store knows nothing; see `KeyMaker`."""
        for pause in (*self._pauses, None):
            try:
                await self._destroy_unless_kept(made)
            except DomainError as error:
                # Nobody comes back to it: what can pass is waited for a little.
                if pause is None or not isinstance(error, Unavailable):
                    doing = "destroy a key that was made for nothing"
                    self._alarm.duty_failed(doing, error, made.identity.name)
                    return
            else:
                return
            await asyncio.sleep(pause)

    async def _destroy_unless_kept(self, made: WrappedKey) -> None:
        digest = made.identity.public_key_sha256
        if await self._store.read(lambda view: view.keys.by_digest(digest)) is None:
            await self._keyholder.destroy(made)

    async def terms(
        self, identity: KeyIdentity, *, exists: bool = False
    ) -> CertificateTerms | None:
        """Return what certificate a new version is to have, None if its scheme has none.

        Raises:
            FailedPrecondition: If the app's root issues none now, or none for keys that exist.
        """
        if identity.scheme not in CERTIFIED:
            return None
        root: KeyVersionRecord | None = None
        if identity.scheme is Scheme.EXPO_V1:
            root = await self._store.read(lambda view: _root(view, identity.app))
        # Devices whose clock is late take it, too.
        now = self._clock()
        if root is None:
            return CertificateTerms(now - _BACKDATED, now + EMBEDDED_DAYS * DAY)
        if exists:
            raise FailedPrecondition(
                f"{root.name} vouches only for keys that the daemon makes: binaries that embed it "
                "take any of them; import a key into an app that has no root",
                reason="ROOT_VOUCHES_FOR_NEW_KEYS",
            )
        # What outlives its issuer is refused by devices.
        ends = min(now + LEAF_DAYS * DAY, root.certificate_ends)
        return CertificateTerms(now - _BACKDATED, ends, (root.wrapped, root.public_key))


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
