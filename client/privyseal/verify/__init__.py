"""Formats and their verification; shared by the client, the gateway and the daemon.

Everything here takes bytes and returns values, or raises `VerificationError`; no function
returns a boolean verdict. Nothing opens a file or a connection; `backup` streams through files
that its callers opened.
"""

MANIFEST = "pro-manifest.json"
"""The manifest's name in a bundle, as the Ionic client wants it."""
