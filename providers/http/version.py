"""Which version of Leasehold this is, as its requests say. Called by the clouds' client and by notifications."""

from __future__ import annotations


def read_version() -> str:
    """The version of Leasehold that is installed."""
    import importlib.metadata  # 15 ms, for the few processes that send something

    try:
        return importlib.metadata.version("leasehold")
    except importlib.metadata.PackageNotFoundError:
        return "0"
