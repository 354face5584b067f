"""expo-updates, protocol version 1: GET /apps/{app}/expo.

The device takes the manifest if `expo-signature`, over its exact bytes, verifies with the
certificate that is compiled in, or with the one that is sent along and hangs on that. It then
fetches the files by the addresses in the manifest, and checks the SHA-256 of each.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import ssl
from collections.abc import Mapping

from privyseal.verify import expo
from privyseal.verify.receipt import SchemeSignature
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from privyseald.gateway.follow import Certificate
from privyseald.gateway.resolve import NoUpdate, Resolver, Served
from privyseald.model.native import NativeVersion

SCHEME = "expo-v1"
_HEADERS = {
    "expo-protocol-version": "1",
    "expo-sfv-version": "0",
    "cache-control": "private, max-age=0",
}
_MOST_MANIFESTS = 64
# A string of RFC 8941, with what is escaped in it; it goes back as it came.
_KEY_ID = re.compile(r'''keyid="((?:[ !#-\[\]-~]|\\["\\]){1,200})"''')
_CHAINED_FOR = 3600
"""Seconds that a certificate must last still when it is sent: downloads take their time."""


class ExpoUpdates:
    """Answers Expo's devices."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._manifests: dict[tuple[str, str, str], bytes] = {}

    async def latest(self, request: Request, now: float) -> Response:
        """Answer with the update for a device, or 204; `now` in seconds since 1970."""
        headers = request.headers
        if headers.get("expo-protocol-version", "1") != "1":
            return JSONResponse({"message": "expo-protocol-version must be 1"}, status_code=406)
        platform, runtime = (
            headers.get("expo-platform", ""),
            headers.get("expo-runtime-version", ""),
        )
        if platform not in expo.PLATFORMS or not runtime:
            raise ValueError("expo-platform or expo-runtime-version is missing")
        served = await _newest(self._resolver, request, platform, runtime)
        if isinstance(served, NoUpdate):
            return _nothing(served)
        statement = served.receipt.statement
        body = self._manifest(served, platform)
        wants = headers.get("expo-expect-signature")
        if wants is None:
            return _answer(request, body, {}, b"")
        chosen = await _chosen(self._resolver, served, now)
        if chosen is None:
            return _nothing(NoUpdate.NO_SIGNATURE)
        signature, certificate = chosen
        each = expo.signatures(statement, signature.signature)[platform]
        # The device compares it with what it is configured with; absent, it means root.
        key_id = found[1] if (found := _KEY_ID.search(wants)) else "root"
        signed = {"expo-signature": expo.signature_header(each, key_id)}
        return _answer(request, body, signed, certificate)

    def _manifest(self, served: Served, platform: str) -> bytes:
        """Return the manifest; of large releases it takes milliseconds to make."""
        at = (served.release.name, served.snapshot, platform)
        found = self._manifests.get(at)
        if found is None:
            if len(self._manifests) >= _MOST_MANIFESTS:
                self._manifests.clear()
            found = self._manifests[at] = expo.manifest(served.receipt.statement, platform)
        return found


def _nothing(why: NoUpdate) -> Response:
    return Response(status_code=204, headers={**_HEADERS, **why.headers})


async def _newest(
    resolver: Resolver, request: Request, platform: str, runtime: str
) -> Served | NoUpdate:
    """Return what a device's channel has for its platform and runtime, if it is not there yet."""
    headers, app = request.headers, request.path_params["app"]
    channel = headers.get("expo-channel-name") or request.query_params.get("channel") or "default"
    # Expo says no native version; a project may have it sent as a header of its own.
    native = headers.get("privyseal-native-version") or runtime
    served = await resolver.channel(app, channel, NativeVersion(platform, native))
    if isinstance(served, NoUpdate):
        return served
    if not served.compatible:
        return NoUpdate.OTHER_NATIVE_VERSION
    statement = served.receipt.statement
    update = statement.expo.update(platform) if statement.expo is not None else None
    if update is None or update.runtime_version != runtime:
        return NoUpdate.OTHER_RUNTIME
    has = headers.get("expo-current-update-id", "").lower()
    return NoUpdate.UP_TO_DATE if has == expo.update_id(statement, platform) else served


async def _chosen(
    resolver: Resolver, served: Served, now: float
) -> tuple[SchemeSignature, bytes] | None:
    """Return the signature that a device verifies, and the certificate to send along.

    That is empty if the device has the certificate. Of several, the one that lasts longest.
    """
    chosen: tuple[float, SchemeSignature, Certificate] | None = None
    trusts = served.build.trusts if served.build is not None else ()
    for signature in served.receipt.signatures:
        if signature.scheme != SCHEME:
            continue
        certificate = await resolver.certificate(signature.key_version)
        anchor = certificate.anchor_sha256 if certificate is not None else b""
        if hashlib.sha256(signature.public_key).digest() in trusts:
            return signature, b""
        # Of a binary that nobody registered: what needs no other certificate, if there is that.
        if not (trusts or anchor):
            return signature, b""
        if certificate is None or not anchor or (trusts and anchor not in trusts):
            continue
        lasts = certificate.ends - now
        if (
            certificate.begins <= now
            and lasts >= _CHAINED_FOR
            and (chosen is None or lasts > chosen[0])
        ):
            chosen = (lasts, signature, certificate)
    if chosen is None:
        return None
    _, signature, found = chosen
    return signature, await resolver.certificate_bytes(signature.key_version, found)


def _answer(
    request: Request, manifest: bytes, signed: Mapping[str, str], certificate: bytes
) -> Response:
    accepts = _accepted(request.headers.get("accept", "*/*"))
    if not accepts & {"multipart/mixed", "multipart/*", "*/*"}:
        if certificate:
            # It would have the signature, and not what it hangs on.
            return JSONResponse(
                {"message": "this update takes multipart/mixed"}, status_code=406, headers=_HEADERS
            )
        expo_json = "application/expo+json"
        media = expo_json if expo_json in accepts else "application/json"
        return Response(manifest, media_type=media, headers={**_HEADERS, **signed})
    boundary = secrets.token_hex(16)
    body = [_part(boundary, "manifest", "application/json", manifest, signed)]
    body.append(_part(boundary, "extensions", "application/json", b'{"assetRequestHeaders":{}}'))
    if certificate:
        pem = ssl.DER_cert_to_PEM_cert(certificate).encode()
        body.append(_part(boundary, "certificate_chain", "text/plain", pem))
    body.append(f"--{boundary}--\r\n".encode())
    media = f"multipart/mixed; boundary={boundary}"
    return Response(b"".join(body), headers={**_HEADERS, "content-type": media})


def _accepted(header: str) -> set[str]:
    """Return the media types that a client takes (RFC 9110 section 12.5.1)."""
    found = set()
    for entry in header.lower().split(","):
        media, *parameters = (part.strip() for part in entry.split(";"))
        if not any(re.fullmatch(r"q\s*=\s*0(\.0{0,3})?", part) for part in parameters):
            found.add(media)
    return found


def _part(
    boundary: str, name: str, media: str, content: bytes, more: Mapping[str, str] | None = None
) -> bytes:
    headers = {
        "content-disposition": f'form-data; name="{name}"',
        "content-type": f"{media}; charset=utf-8",
        **(more or {}),
    }
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    return f"--{boundary}\r\n{lines}\r\n".encode() + content + b"\r\n"
