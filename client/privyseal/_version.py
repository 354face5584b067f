"""The version, alone in its module so that `privyseal --version` imports nothing else."""

__version__ = "0.1.0"
