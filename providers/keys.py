"""SSH key pairs made for one run or one machine. Called by the Lease and Machine resources."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from schemas.files import create_file, replace_file


class KeyPair(msgspec.Struct, frozen=True, kw_only=True):
    """private: OpenSSH PEM text, never to be logged; public: `ssh-ed25519 AAAA...` without a comment."""

    private: str
    public: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def make_key_pair() -> KeyPair:
    """A new Ed25519 pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return KeyPair(private=private.decode(), public=public.decode())


def load_or_make_key_pair(path: Path) -> KeyPair:
    """The pair in path (0600) and path.pub; made on the first call, so that a repeated create uses the same one."""
    if not path.exists():
        made = make_key_pair()
        create_file(path, made.private.encode(), mode=0o600)
    private = path.read_text()
    public = _derive_public(private)
    replace_file(path.with_name(f"{path.name}.pub"), f"{public}\n".encode())
    return KeyPair(private=private, public=public)


def _derive_public(private: str) -> str:
    key = load_ssh_private_key(private.encode(), password=None)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
