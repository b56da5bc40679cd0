"""Secrets by reference: each kind gives the secret, or an error that says what to do and never shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import CredentialError
from stacks.launch.secret_reference import load_secret


def load(reference: str, *, environ: dict[str, str] | None = None, config: dict[str, str] | None = None) -> str:
    return load_secret(reference, environ=environ or {}, get_config=(config or {}).get)


def test_no_reference_is_no_secret() -> None:
    assert load("", environ={"": "x"}) == ""


def test_a_secret_comes_from_the_environment_a_file_or_the_stack(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_file\n")

    assert load("env:HF_TOKEN", environ={"HF_TOKEN": "hf_env"}) == "hf_env"
    assert load(f"file:{tmp_path / 'token'}") == "hf_file"
    assert load("pulumi:hfToken", config={"hfToken": "hf_stack"}) == "hf_stack"


def test_a_secret_is_one_line_since_it_is_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n hf_x \r\n")

    assert load(f"file:{tmp_path / 'token'}") == "hf_x"
    assert load("env:T", environ={"T": "hf_x\n"}) == "hf_x"
    assert load("pulumi:t", config={"t": " hf_x\n"}) == "hf_x"


def test_a_files_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("hf_home")

    assert load("file:~/token") == "hf_home"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("env:NONE", "NONE is not set"),
        ("env:EMPTY", "EMPTY is not set"),
        ("env:BLANK", "BLANK is not set"),
        ("file:/nowhere/token", "/nowhere/token is missing"),
        ("file:/", "is missing"),
        ("pulumi:none", "no secret none"),
        ("hf_realtoken", "not a reference"),
        ("vault:x", "not a reference"),
    ],
)
def test_a_secret_that_is_not_there_is_told_with_what_to_do(reference: str, words: str) -> None:
    with pytest.raises(CredentialError, match=words) as caught:
        load(reference, environ={"EMPTY": "", "BLANK": " \n"})

    assert caught.value.fix


def test_a_file_that_is_no_text_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(CredentialError, match="no text"):
        load(f"file:{tmp_path / 'token'}")
