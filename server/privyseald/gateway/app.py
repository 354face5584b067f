"""The HTTP application: Capawesome, Ionic classic and Expo, and artifacts of a local directory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, BinaryIO

import structlog
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import NoteVerifier
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from privyseald.gateway import capawesome, ionic
from privyseald.gateway.artifacts import Bundles, Cache
from privyseald.gateway.check_ins import CheckInCounter
from privyseald.gateway.downloads import Downloads, content_type
from privyseald.gateway.expo import ExpoUpdates
from privyseald.gateway.fetch import ArtifactError, Fetcher, Sources
from privyseald.gateway.follow import ARTIFACTS, Follower
from privyseald.gateway.manifests import ManifestFiles
from privyseald.gateway.resolve import Resolver
from privyseald.model.errors import DomainError, explain
from privyseald.ports import LastCheckpoint, Store

MAX_BODY = 64 * 1024
_PIECE = 64 * 1024
# One text for whatever the reason: it must not tell what is where the daemon can reach.
_NOT_SERVED = "this cannot be served now"
Endpoint = Callable[[Request], Awaitable[Response]]
_log = structlog.get_logger("gateway")


def create_gateway(
    store: Store,
    *,
    verifier: NoteVerifier,
    kept: LastCheckpoint,
    counter: CheckInCounter,
    public_url: str,
    cache: Cache,
    sources: Sources,
    channel_discovery: bool = True,
) -> Starlette:
    """Return the application.

    Args:
        store: Where receipts and the log are read.
        verifier: The log's key: all that the gateway trusts.
        kept: The log's last checkpoint, outside the database.
        counter: Counts the devices' requests.
        public_url: How devices reach it, without a slash at the end.
        cache: Where verified artifacts are kept.
        sources: Where artifacts may come from; what is registered in their folder is served
            under /artifacts/.
        channel_discovery: Whether devices can list an app's channels.
    """
    follower = Follower(store, verifier, kept)
    resolver = Resolver(store, verifier, follower, counter)
    fetcher = Fetcher(sources)
    bundles, manifests = Bundles(cache, fetcher), ManifestFiles(cache, fetcher)
    endpoints = _Endpoints(
        follower,
        resolver,
        readers={"zip": bundles, "manifest": manifests},
        downloads=Downloads(resolver, bundles, manifests, sources),
        public_url=public_url,
        channel_discovery=channel_discovery,
    )
    # The Ionic client asks from inside a WebView, whose origin can be anything; nothing
    # here depends on cookies or on who asks.
    cors = Middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["GET", "POST"], allow_headers=["*"]
    )
    return Starlette(
        routes=endpoints.routes(),
        middleware=[Middleware(_OneSlash), cors],
        exception_handlers={HTTPException: _no_such},
    )


class _Endpoints:
    """What devices ask for, each protocol at its own address."""

    def __init__(
        self,
        follower: Follower,
        resolver: Resolver,
        *,
        readers: dict[str, ionic.Source],
        downloads: Downloads,
        public_url: str,
        channel_discovery: bool,
    ) -> None:
        self._follower = follower
        self._resolver = resolver
        self._readers = readers
        self._downloads = downloads
        self._public_url = public_url
        self._channel_discovery = channel_discovery
        self._expo = ExpoUpdates(resolver)

    def routes(self) -> list[Route]:
        """Return where each is answered, however it fails."""
        get = ["GET"]
        return [
            Route(path, _guarded(endpoint), methods=methods)
            for path, endpoint, methods in (
                ("/healthz", self._health, get),
                ("/v1/apps/{app}/bundles/latest", self._capawesome_latest, get),
                ("/v1/apps/{app}/channels", self._capawesome_channels, get),
                ("/apps/{app}/expo", self._expo_latest, get),
                ("/apps/{app}/channels/check-device", self._ionic_check_device, ["POST"]),
                ("/apps/{app}/snapshots/{snapshot}/{file:path}", self._ionic_file, get),
                (ARTIFACTS + "{place:path}", self._downloads.artifact, get),
            )
        ]

    async def _health(self, _: Request) -> Response:
        try:
            await self._follower.state()
        except VerificationError:
            # An old copy of the database, or a changed one: nothing of it is served.
            return _error(503, "the log cannot be followed; the daemon's own log says why")
        return JSONResponse({"status": "ok"})

    async def _capawesome_latest(self, request: Request) -> Response:
        return await capawesome.latest(self._resolver, request)

    async def _capawesome_channels(self, request: Request) -> Response:
        return await capawesome.channels(self._resolver, request, shown=self._channel_discovery)

    async def _expo_latest(self, request: Request) -> Response:
        return await self._expo.latest(request, time.time())

    async def _ionic_check_device(self, request: Request) -> Response:
        app, body = request.path_params["app"], await _body(request)
        return await ionic.check_device(self._resolver, self._public_url, app, body)

    async def _ionic_file(self, request: Request) -> Response:
        app, snapshot, file = (request.path_params[name] for name in ("app", "snapshot", "file"))
        found = await ionic.file(self._resolver, self._readers, app, snapshot, file)
        if found is None:
            return _error(404, "there is no such file in this snapshot")
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        # Opened here: it can go from the cache while it is being sent.
        opened = found.open("rb")
        headers["Content-Length"] = str(os.fstat(opened.fileno()).st_size)
        return StreamingResponse(_pieces(opened), media_type=content_type(file), headers=headers)


class _OneSlash:
    """Takes `//apps` for `/apps`: what clients make of a server's address with a slash."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("//"):
            scope = {**scope, "path": "/" + scope["path"].lstrip("/")}
        await self._app(scope, receive, send)


async def _no_such(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _error(status, "there is nothing here, or not for this method")


def _error(status: int, message: str) -> Response:
    # The shape that the Ionic client reads its message from.
    return JSONResponse({"error": {"message": message}}, status_code=status)


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def run(request: Request) -> Response:
        try:
            return await endpoint(request)
        except VerificationError as error:
            _log.error("refused to serve", path=request.url.path, reason=str(error))
            return _error(503, _NOT_SERVED)
        except (DomainError, ArtifactError, OSError) as error:
            _log.warning("cannot serve", path=request.url.path, error=repr(error)[:200])
            return _error(503, _NOT_SERVED)
        except (ValueError, RecursionError):
            return _error(400, "the request is malformed")
        except Exception as error:  # noqa: BLE001 - no traceback in the log, nor at a device
            _log.error("fault in the gateway", path=request.url.path, error=explain(error))
            return _error(503, _NOT_SERVED)

    return run


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise ValueError("body is too long")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("body is not an object")  # noqa: TRY004 - a bad request like any other
    return value
