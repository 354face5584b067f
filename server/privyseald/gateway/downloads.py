"""The gateway's own folder of artifacts: whole bundles, and the files that manifests list.

Whoever uploads writes into it, so that nothing of it is served as it lies there: what devices
get is what was registered at that place and not withdrawn, out of the copies that were verified.
"""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from urllib.parse import quote

from privyseal.verify import MANIFEST
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from privyseald.gateway.artifacts import Bundles
from privyseald.gateway.fetch import ArtifactError, Sources
from privyseald.gateway.manifests import ManifestFiles
from privyseald.gateway.resolve import Resolver

# Not the machine's, which knows .hbc as a format of home banking.
_TYPES = mimetypes.MimeTypes(filenames=())


class Downloads:
    """Serves artifacts.

    Args:
        resolver: Knows what was registered where.
        bundles: Has bundles, verified.
        manifests: Has the files that manifests list, verified.
        sources: Where the folder is.
    """

    def __init__(
        self, resolver: Resolver, bundles: Bundles, manifests: ManifestFiles, sources: Sources
    ) -> None:
        self._resolver = resolver
        self._bundles = bundles
        self._manifests = manifests
        self._sources = sources

    async def artifact(self, request: Request) -> Response:
        """Answer with an artifact, or 404."""
        place = request.path_params["place"]
        found = await self._find(place)
        if found is not None:
            kind = content_type(place)
            return FileResponse(found, media_type=kind, stat_result=os.stat(found))  # noqa: PTH116 - it does not block
        if request.method == "HEAD" and (length := self._length(place)) is not None:
            # Who registers it next sees whether it is there; of what is in it, nobody gets any.
            return Response(headers={"content-length": str(length)})
        return JSONResponse(
            {"error": {"message": "no release is served from here"}}, status_code=404
        )

    async def _find(self, place: str) -> Path | None:
        """Return the verified copy of what was registered at a place, or beside a manifest."""
        whole = await self._resolver.artifact(place)
        if whole is not None and whole[0].type == "zip":
            return await self._bundles.whole(whole[1], self._url(place))
        folder = place
        while folder:
            folder = folder.rpartition("/")[0]
            base = f"{folder}/" if folder else ""
            listed = await self._resolver.artifact(base + MANIFEST)
            if listed is not None and listed[0].type == "manifest":
                name = place.removeprefix(base)
                return await self._manifests.read(listed[1], self._url(base + MANIFEST), name)
        return None

    def _length(self, place: str) -> int | None:
        """Return how long a file of the folder is; None if there is none."""
        try:
            path = self._sources.local(self._url(place))
            return path.stat().st_size if path is not None and path.is_file() else None
        except (ArtifactError, OSError, ValueError):
            return None

    def _url(self, place: str) -> str:
        return self._sources.own_url + quote(place)


def content_type(name: str) -> str:
    """Return a file's media type, by its name."""
    return _TYPES.guess_type(name)[0] or "application/octet-stream"
