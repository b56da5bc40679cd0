"""Key pairs: made once for a path, private to this user, readable by OpenSSH, and never shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

from providers.keys import load_or_make_key_pair, make_key_pair


def test_a_pair_is_ed25519_in_openssh_form_and_new_each_time() -> None:
    first, second = make_key_pair(), make_key_pair()

    assert first.public.startswith("ssh-ed25519 AAAA") and len(first.public.split()) == 2
    assert first.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert first.public != second.public


def test_a_pair_is_made_once_and_then_read(tmp_path: Path) -> None:
    first = load_or_make_key_pair(tmp_path / "id")
    second = load_or_make_key_pair(tmp_path / "id")

    assert first == second
    assert (tmp_path / "id.pub").read_text() == f"{first.public}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["id", "id.pub"]


def test_the_private_half_is_for_this_user_alone(tmp_path: Path) -> None:
    load_or_make_key_pair(tmp_path / "id")

    assert (tmp_path / "id").stat().st_mode & 0o777 == 0o600


def test_a_public_half_that_is_missing_or_wrong_is_made_anew(tmp_path: Path) -> None:
    pair = load_or_make_key_pair(tmp_path / "id")
    (tmp_path / "id.pub").write_text("ssh-ed25519 other\n")

    assert load_or_make_key_pair(tmp_path / "id") == pair
    assert (tmp_path / "id.pub").read_text() == f"{pair.public}\n"


def test_openssh_derives_the_same_public_half(tmp_path: Path) -> None:
    pair = load_or_make_key_pair(tmp_path / "id")

    told = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "id"], capture_output=True, text=True, timeout=10)

    assert told.stdout.split()[:2] == pair.public.split()


def test_a_pair_does_not_show_its_private_half() -> None:
    pair = make_key_pair()

    assert "PRIVATE" not in repr(pair) and "PRIVATE" not in f"{pair}"
