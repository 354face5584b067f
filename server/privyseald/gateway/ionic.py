"""cordova-plugin-ionic: POST /apps/{app}/channels/check-device, manifest and files.

The client never checks what it downloads; its safety is TLS and that the gateway reads
every file out of a bundle whose digest it verified. Files must be at paths relative to the
manifest's URL, and the manifest itself is never listed in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from privyseal.verify import MANIFEST
from privyseal.verify.errors import VerificationError
from privyseal.verify.statement import Statement
from starlette.responses import JSONResponse, Response

from privyseald.gateway.resolve import NoUpdate, Resolver
from privyseald.model.native import NativeVersion


class Source(Protocol):
    """Reads files of an artifact that it verified."""

    async def read(self, statement: Statement, url: str, name: str) -> Path | None:
        """Return a file, or None. Raises VerificationError, ArtifactError."""
        ...


NOTHING = {"available": False, "compatible": False, "partial": False}


async def check_device(
    resolver: Resolver, public_url: str, app: str, body: dict[str, Any]
) -> Response:
    """Answer with a snapshot for a device, or that there is none."""
    device, channel = body.get("device"), body.get("channel_name")
    if not isinstance(device, dict) or not isinstance(channel, str):
        raise ValueError("device or channel_name is missing")  # noqa: TRY004 - a bad request
    native = NativeVersion(str(device.get("platform", "")), str(device.get("binary_version", "")))
    served = await resolver.channel(app, channel, native)
    if isinstance(served, NoUpdate):
        return _nothing(served)
    if not served.compatible:
        return _nothing(NoUpdate.OTHER_NATIVE_VERSION, incompatibleUpdateAvailable=True)
    if device.get("snapshot") == served.snapshot:
        return _nothing(NoUpdate.UP_TO_DATE, compatible=True)
    return JSONResponse(
        {
            "data": {
                "available": True,
                "compatible": True,
                "partial": False,
                "snapshot": served.snapshot,
                "build": str(served.release.counter),
                "url": f"{public_url}/apps/{app}/snapshots/{served.snapshot}/{MANIFEST}",
                "incompatibleUpdateAvailable": False,
            }
        }
    )


def _nothing(why: NoUpdate, **more: bool) -> Response:
    return JSONResponse({"data": {**NOTHING, **more}}, headers=why.headers)


async def file(
    resolver: Resolver, sources: Mapping[str, Source], app: str, snapshot: str, name: str
) -> Path | None:
    """Return a file of a snapshot, or None.

    Args:
        resolver: Finds the release.
        sources: Where files are read from and verified, by artifact type.
        app: The app's id.
        snapshot: The snapshot's id, as `check_device` gave it.
        name: The file's name in the bundle.
    """
    served = await resolver.snapshot(app, snapshot)
    if served is None:
        return None
    source = sources[served.release.type]
    found = await source.read(served.receipt.statement, served.release.url, name)
    if name == MANIFEST and found is None:
        raise VerificationError("bundle has no manifest")
    return found
