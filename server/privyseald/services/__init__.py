"""One use case a module; no I/O but through ports."""
