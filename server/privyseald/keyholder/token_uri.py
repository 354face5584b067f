"""Addresses of keys in tokens: RFC 7512."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes


@dataclass(frozen=True)
class TokenUri:
    """The address of a key in a token (RFC 7512, section 2.3).

    Attributes:
        token: The token's label.
        serial: Its serial number.
        label: The key's label, CKA_LABEL.
        id: The key's id, CKA_ID.
        model: The token's model; looked at, and not kept: the serial number says more.
        manufacturer: Its manufacturer, likewise.
    """

    token: str = ""
    serial: str = ""
    label: str = ""
    id: bytes = b""
    model: str = ""
    manufacturer: str = ""

    def __str__(self) -> str:
        parts = [
            f"{name}={quote_from_bytes(value, safe='')}"
            for name, value in (
                ("token", self.token.encode()),
                ("serial", self.serial.encode()),
                ("object", self.label.encode()),
            )
            if value
        ]
        if self.id:
            parts.append("id=" + "".join(f"%{byte:02x}" for byte in self.id))
        return "pkcs11:" + ";".join([*parts, "type=private"])

    @classmethod
    def parse(cls, text: str) -> TokenUri:
        """Return the address in a URI. Raises ValueError."""
        if not text.startswith("pkcs11:") or len(text) > 1024:
            raise ValueError("must begin with pkcs11:")
        path, _, query = text[7:].partition("?")
        if query:
            raise ValueError("must not have a query; module and PIN are settings")
        found: dict[str, bytes] = {}
        for part in filter(None, path.split(";")):
            name, equals, value = part.partition("=")
            if not equals or name in found or re.search(r"%(?![0-9A-Fa-f]{2})", value):
                raise ValueError("is malformed")
            found[name] = unquote_to_bytes(value)
        # Vendors' own (section 2.3, pk11-v-attr) may be ignored; slots and libraries say where a
        # token is, not which one, and the module is a setting.
        known = {"token", "serial", "model", "manufacturer", "object", "id", "type"}
        if unknown := {name for name in found if not name.startswith("x-")} - known:
            raise ValueError(f"has {', '.join(sorted(unknown))}, which is not supported")
        if found.get("type", b"private") != b"private" or not {"object", "id"} & set(found):
            raise ValueError("must name a private key by object or id")
        try:
            texts = {name: found.get(name, b"").decode() for name in known - {"id", "type"}}
        except UnicodeDecodeError:
            raise ValueError("has a text that is not UTF-8") from None
        label = texts.pop("object")
        return cls(label=label, id=found.get("id", b""), **texts)
