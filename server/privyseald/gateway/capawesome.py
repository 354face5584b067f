"""@capacitor-live-update by Capawesome: GET /v1/apps/{app}/bundles/latest.

The client treats every status but 2xx as "no update". With a public key configured it
verifies `signature` (RSASSA-PKCS1-v1_5, SHA-256, over the zip; standard base64).
"""

from __future__ import annotations

import base64

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from privyseald.gateway.resolve import NoUpdate, Resolver
from privyseald.model.native import NativeVersion

SCHEME = "capawesome-v1"
MOST_CHANNELS = 1000
"""Channels in one answer."""
PLATFORMS = {"0": "android", "1": "ios"}


async def latest(resolver: Resolver, request: Request) -> Response:
    """Answer with the newest bundle for a device, or 404."""
    query, app = request.query_params, request.path_params["app"]
    channel = query.get("channelName") or "default"
    platform = PLATFORMS.get(query.get("platform", ""), "")
    device = NativeVersion(
        platform, query.get("appVersionName", ""), query.get("appVersionCode", "")
    )
    served = await resolver.channel(app, channel, device)
    if isinstance(served, NoUpdate):
        return _nothing(served)
    if not served.compatible:
        return _nothing(NoUpdate.OTHER_NATIVE_VERSION)
    if served.release.type != "zip":
        return _nothing(NoUpdate.OTHER_ARTIFACT)
    signature = served.signature(SCHEME)
    if signature is None and served.build is not None:
        # Its binary would refuse what there is.
        return _nothing(NoUpdate.NO_SIGNATURE)
    return JSONResponse(
        {
            "artifactType": "zip",
            "bundleId": served.snapshot,
            "channelName": channel,
            "checksum": served.receipt.statement.bundle_sha256.hex(),
            "customProperties": {},
            "signature": base64.b64encode(signature.signature).decode() if signature else None,
            "url": served.release.url,
        }
    )


def _nothing(why: NoUpdate) -> Response:
    return JSONResponse({"message": "no update"}, status_code=404, headers=why.headers)


async def channels(resolver: Resolver, request: Request, *, shown: bool) -> Response:
    """List an app's channels, those with a text in their name; 401 if that is not to be."""
    if not shown:
        return JSONResponse({"message": "channels are not listed"}, status_code=401)
    query = request.query_params
    limit, offset = int(query.get("limit") or MOST_CHANNELS), int(query.get("offset") or 0)
    if limit < 0 or offset < 0:
        raise ValueError("limit or offset is negative")
    found = await resolver.channels(request.path_params["app"])
    found = [name for name in found if query.get("query", "") in name]
    page = found[offset : offset + min(limit, MOST_CHANNELS)]
    return JSONResponse([{"id": name, "name": name} for name in page])
