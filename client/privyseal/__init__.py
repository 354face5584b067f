"""Privyseal's client: bundle, sign, upload, register, deploy and verify."""

from privyseal._version import __version__

__all__ = ["__version__"]
