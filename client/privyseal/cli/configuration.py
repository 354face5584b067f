"""What a native project must say of a key, to paste into it."""

from __future__ import annotations

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


def configuration(
    scheme: str,
    app_id: str,
    public: str,
    *,
    file: str = "",
    chained: bool = False,
    standby: bool = False,
) -> list[str]:
    """Return what a native project must say, in lines.

    Args:
        scheme: Of the key.
        app_id: Its app.
        public: What devices embed of it, as text.
        file: Where that was written.
        chained: Its certificate hangs on another, which they embed instead.
        standby: It does not sign yet.
    """
    if chained:
        return [
            "Devices are sent that certificate: embed that of the root (expo-root-v1), not it, and",
            "turn the chain on there (docs/keys.md, Expo).",
        ]
    more = []
    if scheme == "capawesome-v1":
        # Without it the plugin asks its maker's own service.
        more = ["      serverDomain: 'YOUR-GATEWAY',"]
        one_line = public.replace("\n", "")
        plugin, key, quoted = "LiveUpdate", "publicKey", f"'{one_line}'"
    elif scheme == "capgo-v2":
        # The plugin wants the line breaks.
        escaped = public.replace("\n", "\\n")
        plugin, key, quoted = "CapacitorUpdater", "publicKey", f"'{escaped}'"
    elif scheme == "codepush-v1":
        one_line = public.replace("\n", "")
        return [
            "",
            "Android, strings.xml:",
            "",
            f'  <string name="CodePushPublicKey">{one_line}</string>',
            "",
            "iOS, Info.plist: the same text under CodePushPublicKey.",
        ]
    elif scheme == "sparkle-ed25519":
        return [
            "",
            "Info.plist:",
            "",
            "  <key>SUPublicEDKey</key>",
            f"  <string>{public.strip()}</string>",
        ]
    elif scheme in {"expo-v1", "expo-root-v1"}:
        lines = [
            "",
            f"Put {file} into the project, and into app.json:",
            "",
            '  "updates": {',
            f'    "url": "https://YOUR-GATEWAY/apps/{app_id}/expo",',
            f'    "codeSigningCertificate": "./{file}",',
            '    "codeSigningMetadata": { "keyid": "main", "alg": "rsa-v1_5-sha256" },',
            '    "requestHeaders": { "expo-channel-name": "YOUR-CHANNEL" }',
            "  },",
        ]
        return lines if scheme == "expo-v1" else [*lines, *_CHAIN]
    else:
        return []
    return [
        "",
        "For capacitor.config.ts, of builds that ship after that:"
        if standby
        else "Paste into capacitor.config.ts:",
        "",
        "  plugins: {",
        f"    {plugin}: {{",
        f"      appId: '{app_id}',",
        f"      {key}: {quoted},",
        *more,
        "    },",
        "  },",
    ]
