"""The HTTP front for devices: no keys, no right to sign."""
