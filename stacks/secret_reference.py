"""Secrets by reference: `env:NAME`, `file:PATH` or `pulumi:KEY` in a template becomes the secret itself, at the last moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from schemas.errors import CredentialError


def load_secret(reference: str, *, environ: Mapping[str, str], get_config: Callable[[str], str | None]) -> str:
    """The secret that a reference names, "" for an empty reference; raises CredentialError when it is not there."""
    kind, _, name = reference.partition(":")
    if not reference:
        return ""
    if kind == "env":
        return _require(environ.get(name), f"the environment variable {name} is not set", f"export {name}=...")
    if kind == "file":
        path = Path(name).expanduser()
        text = path.read_text().strip() if path.is_file() else ""
        return _require(text, f"the secret's file {path} is missing or empty", "Write the secret into it, mode 0600.")
    if kind == "pulumi":
        fix = f"pulumi config set --secret {name} ..."
        return _require(get_config(name), f"the stack has no secret {name}", fix)
    raise CredentialError(f"{reference!r} is not a reference to a secret", fix="Use env:NAME, file:PATH or pulumi:KEY.")


def _require(secret: str | None, what: str, fix: str) -> str:
    if not secret:
        raise CredentialError(what, fix=fix)
    return secret
