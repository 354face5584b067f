"""Typed content as messages, for who asks for signatures and for who makes them."""

from __future__ import annotations

from privyseal.v1 import types_pb2
from privyseal.verify.expo import Expo, ExpoAsset, ExpoUpdate

PLATFORMS = {"android": types_pb2.PLATFORM_ANDROID, "ios": types_pb2.PLATFORM_IOS}
_PLATFORM_OF = {v: k for k, v in PLATFORMS.items()}


def expo_to_message(expo: Expo) -> types_pb2.ExpoContent:
    """Return what is signed for Expo as a message."""
    return types_pb2.ExpoContent(
        updates=[
            types_pb2.ExpoUpdate(
                platform=PLATFORMS[u.platform],
                runtime_version=u.runtime_version,
                launch_path=u.launch_path,
                launch_sha256=u.launch_sha256,
                assets=[
                    types_pb2.ExpoAsset(
                        path=a.path,
                        content_type=a.content_type,
                        extension=a.extension,
                        sha256=a.sha256,
                    )
                    for a in u.assets
                ],
            )
            for u in expo.updates
        ],
        config=expo.config,
        gateway=expo.gateway,
    )


def expo_from_message(message: types_pb2.ExpoContent) -> Expo:
    """Return what is signed for Expo. Raises KeyError for an unknown platform."""
    return Expo(
        updates=tuple(
            ExpoUpdate(
                platform=_PLATFORM_OF[u.platform],
                runtime_version=u.runtime_version,
                launch_path=u.launch_path,
                launch_sha256=u.launch_sha256,
                assets=tuple(
                    ExpoAsset(a.path, a.content_type, a.extension, a.sha256) for a in u.assets
                ),
            )
            for u in message.updates
        ),
        config=message.config,
        gateway=message.gateway,
    )
