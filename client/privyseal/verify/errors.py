"""The one error of this package."""


class VerificationError(ValueError):
    """Something is not what it claims to be; the message says what."""
