"""Which runtime version an Expo project has: only binaries of the same one take an update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def runtime_version(config: Mapping[str, Any], platform: str) -> str:
    """Return what an Expo configuration says of a platform's runtime version; empty if nothing.

    As Expo's own tools do: a platform's own value counts, then that of all; a policy makes it
    of the version and the build's number, or of the SDK. A fingerprint is not computed here.
    """
    own = config.get(platform)
    own = own if isinstance(own, dict) else {}
    told = own.get("runtimeVersion") or config.get("runtimeVersion")
    if isinstance(told, str):
        return told
    policy = told.get("policy") if isinstance(told, dict) else ""
    version = own.get("version") or config.get("version") or "1.0.0"
    if policy == "appVersion":
        return str(version)
    if policy == "nativeVersion":
        number = own.get("versionCode" if platform == "android" else "buildNumber") or 1
        return f"{version}({number})"
    if policy == "sdkVersion" and config.get("sdkVersion"):
        return f"exposdk:{config['sdkVersion']}"
    return ""
