"""Secrets by reference: `env:NAME`, `file:PATH` or `pulumi:KEY` in a template becomes the secret itself, at the last moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from schemas.errors import CredentialError
from schemas.home_path import expand_home


def load_secret(reference: str, *, environ: Mapping[str, str], get_config: Callable[[str], str | None]) -> str:
    """The secret that a reference names, "" for an empty reference; raises CredentialError when it is not there."""
    kind, _, name = reference.partition(":")
    if not reference:
        return ""
    if kind == "env":
        return _require(
            environ.get(name, "").strip(), f"the environment variable {name} is not set", f"export {name}=..."
        )
    if kind == "file":
        path = expand_home(name)
        what = f"the secret's file {path} is missing, empty or no text"
        return _require(_read_file(path), what, "Write the secret into it, mode 0600.")
    if kind == "pulumi":
        fix = f"pulumi config set --secret {name} ..."
        return _require((get_config(name) or "").strip(), f"the stack has no secret {name}", fix)
    raise CredentialError(f"{reference!r} is not a reference to a secret", fix="Use env:NAME, file:PATH or pulumi:KEY.")


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _require(secret: str, what: str, fix: str) -> str:
    if not secret:
        raise CredentialError(what, fix=fix)
    return secret
