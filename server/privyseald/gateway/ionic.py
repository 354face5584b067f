"""cordova-plugin-ionic: POST /apps/{app}/channels/check-device, manifest and files.

The client never checks what it downloads; its safety is TLS and that the gateway reads
every file out of a bundle whose digest it verified. Files must be at paths relative to the
manifest's URL, and the manifest itself is never listed in it.
"""

from __future__ import annotations

from typing import Any

from privyseal.verify.errors import VerificationError
from starlette.responses import JSONResponse, Response

from privyseald.gateway.artifacts import MANIFEST, Bundles
from privyseald.gateway.resolve import Resolver
from privyseald.model.native import NativeVersion

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
    if served is None or served.release.artifact_type != "zip":
        return JSONResponse({"data": NOTHING})
    if not served.compatible:
        return JSONResponse({"data": {**NOTHING, "incompatibleUpdateAvailable": True}})
    if device.get("snapshot") == served.snapshot:
        return JSONResponse({"data": {**NOTHING, "compatible": True}})
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


async def file(
    resolver: Resolver, bundles: Bundles, app: str, snapshot: str, name: str
) -> bytes | None:
    """Return a file of a snapshot out of its verified bundle, or None."""
    served = await resolver.snapshot(app, snapshot)
    if served is None or served.release.artifact_type != "zip":
        return None
    statement = served.receipt.statement
    data = await bundles.read(statement, served.release.artifact_url, name)
    if name == MANIFEST and data is None:
        raise VerificationError("bundle has no manifest")
    return data
