"""Formats and their verification; shared by the client, the gateway and the daemon.

Everything here takes bytes and returns values, or raises `VerificationError`; nothing
does I/O, and no function returns a boolean verdict.
"""
