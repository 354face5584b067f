"""The process that has key material, and its supervisor."""
