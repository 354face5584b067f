"""Runtime versions, as Expo's own tools find them."""

import pytest
from privyseal.expo_runtime import runtime_version

ROWS = {
    "a text": ({"runtimeVersion": "7"}, "7", "7"),
    "a platform's own": ({"runtimeVersion": "7", "ios": {"runtimeVersion": "8"}}, "7", "8"),
    "the app's version": (
        {"version": "1.4.0", "runtimeVersion": {"policy": "appVersion"}},
        "1.4.0",
        "1.4.0",
    ),
    "a platform's version": (
        {
            "version": "1.4.0",
            "android": {"version": "2.0.0"},
            "runtimeVersion": {"policy": "appVersion"},
        },
        "2.0.0",
        "1.4.0",
    ),
    "versions of the store": (
        {
            "version": "1.4.0",
            "android": {"versionCode": 37},
            "ios": {"buildNumber": "12"},
            "runtimeVersion": {"policy": "nativeVersion"},
        },
        "1.4.0(37)",
        "1.4.0(12)",
    ),
    "the SDK": (
        {"sdkVersion": "57.0.0", "runtimeVersion": {"policy": "sdkVersion"}},
        "exposdk:57.0.0",
        "exposdk:57.0.0",
    ),
    "a fingerprint": ({"runtimeVersion": {"policy": "fingerprint"}}, "", ""),
    "nothing": ({"version": "1.0.0"}, "", ""),
}


@pytest.mark.parametrize("name", ROWS)
def test_runtime_version(name):
    config, android, ios = ROWS[name]
    assert runtime_version(config, "android") == android
    assert runtime_version(config, "ios") == ios
