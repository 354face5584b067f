"""What a native project must say of a key, to paste into it."""

from __future__ import annotations


def configuration(scheme: str, app_id: str, public: str) -> list[str]:
    """Return what a native project must say, in lines."""
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
