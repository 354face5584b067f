"""A daemon's services and Expo's devices, which verify as expo-updates' code signing does."""

from __future__ import annotations

import base64
import re
from email.parser import BytesParser

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from privyseald.gateway.expo import ExpoUpdates
from privyseald.model.field import NativeBuild
from privyseald.model.schemes import KeyPlace, Scheme
from starlette.requests import Request

from tests.simulator import APP, World

BUILD = "android-1.0.0-10"
DAY = 86_400


class ExpoWorld(World):
    """A world whose devices are Expo's: they have a certificate, and a clock."""

    def root(self):
        create = self.keys.create_key
        return self.do(
            create(
                *(self.olivia, self.request()),
                app=APP,
                key_id="",
                scheme=Scheme.EXPO_ROOT_V1,
                algorithm=None,
                place=KeyPlace(),
            )
        ).versions[0]

    def leaf(self):
        create = self.keys.create_key
        return self.do(
            create(
                *(self.olivia, self.request()),
                app=APP,
                key_id="",
                scheme=Scheme.EXPO_V1,
                algorithm=None,
                place=KeyPlace(),
            )
        ).versions[0]

    def embed(self, version, build=BUILD):
        platform, name, code = build.split("-")
        made = NativeBuild(
            APP, "", platform, name, code, "expo", (version.public_key_sha256,), registered_at=0
        )
        self.do(
            self.builds.register(
                *(self.olivia, self.request(), made), allow_unknown=False, already_shipped=False
            )
        )

    def fetch(self, **headers):
        """Ask as a device; return status, body or parts, and headers."""
        sent = {
            "accept": "multipart/mixed,application/expo+json,application/json",
            "expo-platform": "android",
            "expo-protocol-version": "1",
            "expo-runtime-version": "1.0.0",
            "expo-channel-name": "production",
            "expo-expect-signature": 'sig, keyid="main", alg="rsa-v1_5-sha256"',
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/apps/{APP}/expo",
            "query_string": b"",
            "path_params": {"app": APP},
            "headers": [(k.encode(), v.encode()) for k, v in sent.items() if v],
        }
        answer = self.run(ExpoUpdates(self.resolver).latest(Request(scope), float(self.now)))
        return answer.status_code, dict(answer.headers), answer.body

    def updates_with(self, certificate: bytes, **headers) -> bool:
        """Update as a device that embeds a certificate, as expo-updates' code signing does."""
        status, told, body = self.fetch(**headers)
        if status == 204:
            return False
        parts = multipart(told, body)
        headers_of, manifest = parts["manifest"]
        embedded = x509.load_der_x509_certificate(certificate)
        key = embedded
        if "certificate_chain" in parts:
            key = x509.load_pem_x509_certificate(parts["certificate_chain"][1])
            key.verify_directly_issued_by(embedded)
        for each in {key, embedded}:
            begins, ends = each.not_valid_before_utc, each.not_valid_after_utc
            if not begins.timestamp() <= self.now <= ends.timestamp():
                return False
        given = dict(re.findall(r'(\w+)="([^"]*)"', headers_of["expo-signature"]))
        assert given["keyid"] == "main"
        assert given["alg"] == "rsa-v1_5-sha256"
        key.public_key().verify(
            base64.b64decode(given["sig"]), manifest, padding.PKCS1v15(), hashes.SHA256()
        )
        return True


def multipart(headers, body):
    """Return the parts of an answer by name, as another MIME parser reads them."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + body)
    return {
        part.get_param("name", header="content-disposition"): (
            dict(part.items()),
            part.get_payload(decode=True),
        )
        for part in message.get_payload()
    }
