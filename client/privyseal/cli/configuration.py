"""What a native project must say of a key, to paste into it."""

from __future__ import annotations


def configuration(scheme: str, app_id: str, public: str, *, chained: bool = False) -> list[str]:
    """Return what a native project must say, in lines.

    Args:
        scheme: Of the key.
        app_id: Its app.
        public: What devices embed of it, as text.
        chained: Its certificate hangs on another, which they embed instead.
    """
    if chained:
        return ["Devices are sent that certificate: embed that of the root (expo-root-v1), not it."]
    if scheme == "capawesome-v1":
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
        chain = ['      "codeSigningIncludeManifestResponseCertificateChain": true,']
        return [
            "",
            "Put the certificate into the project, and into app.json:",
            "",
            '  "updates": {',
            f'      "url": "https://YOUR-GATEWAY/apps/{app_id}/expo",',
            '      "codeSigningCertificate": "./THE-CERTIFICATE.pem",',
            *(chain if scheme == "expo-root-v1" else []),
            '      "codeSigningMetadata": { "keyid": "main", "alg": "rsa-v1_5-sha256" },',
            '      "requestHeaders": { "expo-channel-name": "YOUR-CHANNEL" }',
            "  }",
        ]
    else:
        return []
    return [
        "",
        "Paste into capacitor.config.ts:",
        "",
        "  plugins: {",
        f"    {plugin}: {{",
        f"      appId: '{app_id}',",
        f"      {key}: {quoted},",
        "    },",
        "  },",
    ]
