"""What a native project must say of a key, to paste into it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_CHAIN = [
    '  "plugins": ["./with-certificate-chain"]',
    "",
    "app.json has no word for the chain, without which devices refuse every update. Write",
    "with-certificate-chain.js beside it:",
    "",
    "  const { AndroidConfig, ...plugins } = require('expo/config-plugins');",
    "  const NAME =",
    "    'expo.modules.updates.CODE_SIGNING_INCLUDE_MANIFEST_RESPONSE_CERTIFICATE_CHAIN';",
    "  module.exports = (config) =>",
    "    plugins.withExpoPlist(",
    "      plugins.withAndroidManifest(config, (c) => {",
    "        const app = AndroidConfig.Manifest.getMainApplicationOrThrow(c.modResults);",
    "        AndroidConfig.Manifest.addMetaDataItemToMainApplication(app, NAME, 'true');",
    "        return c;",
    "      }),",
    "      (c) => {",
    "        c.modResults.EXUpdatesCodeSigningIncludeManifestResponseCertificateChain = true;",
    "        return c;",
    "      },",
    "    );",
]


@dataclass(frozen=True)
class Embedded:
    """What devices embed of a key.

    Attributes:
        app_id: Its app.
        public: The public key or certificate, as text.
        file: Where that was written.
        standby: It does not sign yet.
    """

    app_id: str
    public: str
    file: str = ""
    standby: bool = False


def configuration(scheme: str, embedded: Embedded, *, chained: bool = False) -> list[str]:
    """Return what a native project must say, in lines; none of a scheme that has no project.

    Args:
        scheme: Of the key.
        embedded: What devices embed.
        chained: Its certificate hangs on another, which they embed instead.
    """
    if chained:
        return [
            "Devices are sent that certificate: embed that of the root (expo-root-v1), not it, and",
            "turn the chain on there (docs/keys.md, Expo).",
        ]
    lines = _LINES.get(scheme)
    return lines(embedded) if lines is not None else []


def _capawesome(embedded: Embedded) -> list[str]:
    one_line = embedded.public.replace("\n", "")
    # Without a domain the plugin asks its maker's own service.
    more = [f"publicKey: '{one_line}'", "serverDomain: 'YOUR-GATEWAY'"]
    return _capacitor(embedded, "LiveUpdate", more)


def _capgo(embedded: Embedded) -> list[str]:
    # The plugin wants the line breaks.
    escaped = embedded.public.replace("\n", "\\n")
    return _capacitor(embedded, "CapacitorUpdater", [f"publicKey: '{escaped}'"])


def _capacitor(embedded: Embedded, plugin: str, members: list[str]) -> list[str]:
    return [
        "",
        "For capacitor.config.ts, of builds that ship after that:"
        if embedded.standby
        else "Paste into capacitor.config.ts:",
        "",
        "  plugins: {",
        f"    {plugin}: {{",
        f"      appId: '{embedded.app_id}',",
        *(f"      {member}," for member in members),
        "    },",
        "  },",
    ]


def _codepush(embedded: Embedded) -> list[str]:
    one_line = embedded.public.replace("\n", "")
    return [
        "",
        "Android, strings.xml:",
        "",
        f'  <string name="CodePushPublicKey">{one_line}</string>',
        "",
        "iOS, Info.plist: the same text under CodePushPublicKey.",
    ]


def _sparkle(embedded: Embedded) -> list[str]:
    return [
        "",
        "Info.plist:",
        "",
        "  <key>SUPublicEDKey</key>",
        f"  <string>{embedded.public.strip()}</string>",
    ]


def _expo(embedded: Embedded) -> list[str]:
    return [
        "",
        f"Put {embedded.file} into the project, and into app.json:",
        "",
        '  "updates": {',
        f'    "url": "https://YOUR-GATEWAY/apps/{embedded.app_id}/expo",',
        f'    "codeSigningCertificate": "./{embedded.file}",',
        '    "codeSigningMetadata": { "keyid": "main", "alg": "rsa-v1_5-sha256" },',
        '    "requestHeaders": { "expo-channel-name": "YOUR-CHANNEL" }',
        "  },",
    ]


_LINES: dict[str, Callable[[Embedded], list[str]]] = {
    "capawesome-v1": _capawesome,
    "capgo-v2": _capgo,
    "codepush-v1": _codepush,
    "sparkle-ed25519": _sparkle,
    "expo-v1": _expo,
    "expo-root-v1": lambda embedded: [*_expo(embedded), *_CHAIN],
}
