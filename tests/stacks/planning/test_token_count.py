"""Counting prompts with the model's own tokenizer: where its file is looked for, and how far the count is to be trusted."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from schemas.template import ModelSource
from stacks.planning.token_count import count_tokens, find_tokenizer

WORDS = {"a": 0, "[UNK]": 1, "drill": 2}


def make_source(**fields: str) -> ModelSource:
    return ModelSource(**({"type": "huggingface", "uri": "acme/model"} | fields))  # type: ignore[arg-type]


def write_tokenizer(folder: Path) -> Path:
    """The smallest real one: a token is a word between blanks."""
    data = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": WORDS, "unk_token": "[UNK]"},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(data))
    return path


def write_batch(path: Path, *texts: str, key: str = "content") -> int:
    """A batch whose bodies hold one text each; the bytes of the bodies."""
    bodies = []
    for text in texts:
        part: Any = [{"role": "user", "content": text}] if key == "content" else text
        bodies.append({"model": "m", ("messages" if key == "content" else key): part})
    lines = [{"custom_id": str(number), "body": body} for number, body in enumerate(bodies)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return sum(len(json.dumps(body)) for body in bodies)


@pytest.fixture
def splitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `tokenizers` as far as it is used here, splitting at blanks; with the real one the last test compares."""

    class Encoding:
        def __init__(self, text: str) -> None:
            self.ids = text.split()

    class Tokenizer:
        @staticmethod
        def from_file(path: str) -> Any:
            json.loads(Path(path).read_text())
            return types.SimpleNamespace(encode=lambda text, add_special_tokens: Encoding(text))

    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Tokenizer))


def test_the_template_may_name_the_file_or_its_folder(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "own")

    for name in (str(path), str(path.parent)):
        assert find_tokenizer(make_source(tokenizer_path=name), {"HF_HOME": str(tmp_path)}) == path


@pytest.mark.parametrize(
    ("name", "variable", "below", "revision"),
    [
        ("acme/model", "HF_HOME", "hub", ""),
        ("acme/model", "HF_HUB_CACHE", "", "v2"),
        ("other/tokenizer", "HF_HOME", "hub", ""),
    ],
)
def test_the_hubs_cache_is_looked_into(tmp_path: Path, name: str, variable: str, below: str, revision: str) -> None:
    folder = tmp_path / below / f"models--{name.replace('/', '--')}"
    path = write_tokenizer(folder / "snapshots" / "abc123")
    (folder / "refs").mkdir()
    (folder / "refs" / (revision or "main")).write_text("abc123\n")
    source = make_source(revision=revision, tokenizer_path="" if name == "acme/model" else name)

    assert find_tokenizer(source, {variable: str(tmp_path)}) == path


def test_without_a_file_there_is_none(tmp_path: Path) -> None:
    assert find_tokenizer(make_source(), {"HF_HOME": str(tmp_path)}) is None
    assert find_tokenizer(make_source(type="local", uri="builtin:tiny-chat"), {"HF_HOME": str(tmp_path)}) is None


@pytest.mark.usefixtures("splitter")
def test_all_lines_of_a_small_batch_are_counted(tmp_path: Path) -> None:
    total = write_batch(tmp_path / "in.jsonl", "one two three", "one two three four five")

    counted = count_tokens(tmp_path / "in.jsonl", write_tokenizer(tmp_path), total_bytes=total)

    assert counted is not None
    assert counted.tokens.likely == pytest.approx(3 + 5 + 2 * (4 + 3))
    assert counted.tokens.low < counted.tokens.likely < counted.tokens.high
    assert "on 2 lines, right to" in counted.words


@pytest.mark.usefixtures("splitter")
@pytest.mark.parametrize("key", ["prompt", "input", "query"])
def test_every_endpoints_texts_are_counted_and_names_are_not(tmp_path: Path, key: str) -> None:
    total = write_batch(tmp_path / "in.jsonl", "one two three", key=key)

    counted = count_tokens(tmp_path / "in.jsonl", write_tokenizer(tmp_path), total_bytes=total)

    assert counted is not None and counted.tokens.likely == pytest.approx(3 + 4 + 3)


@pytest.mark.usefixtures("splitter")
@pytest.mark.parametrize("lines", [5_000, 40_000])
def test_a_sample_of_a_large_batch_is_as_good_as_it_says(tmp_path: Path, lines: int) -> None:
    texts = ["word " * (1 + number % 37) for number in range(lines)]
    total = write_batch(tmp_path / "in.jsonl", *texts)

    counted = count_tokens(tmp_path / "in.jsonl", write_tokenizer(tmp_path), total_bytes=total)

    truth = sum(1 + number % 37 for number in range(lines)) + lines * (4 + 3)
    assert counted is not None
    assert counted.tokens.low <= truth <= counted.tokens.high
    assert counted.tokens.high / counted.tokens.low < 1.2


@pytest.mark.usefixtures("splitter")
def test_with_a_limit_only_its_lines_are_looked_at(tmp_path: Path) -> None:
    write_batch(tmp_path / "in.jsonl", *["short"] * 10, *["very " * 500] * 10)
    first = write_batch(tmp_path / "first.jsonl", *["short"] * 10)

    counted = count_tokens(tmp_path / "in.jsonl", write_tokenizer(tmp_path), total_bytes=first, line_limit=10)

    assert counted is not None and counted.tokens.likely == pytest.approx(10 * (1 + 4 + 3))


@pytest.mark.usefixtures("splitter")
@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), lambda path: path.unlink()])
def test_a_tokenizer_that_cannot_be_read_counts_nothing(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    total = write_batch(tmp_path / "in.jsonl", "one")
    path = write_tokenizer(tmp_path)
    spoil(path)

    assert count_tokens(tmp_path / "in.jsonl", path, total_bytes=total) is None


def test_without_the_package_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    total = write_batch(tmp_path / "in.jsonl", "one")

    assert count_tokens(tmp_path / "in.jsonl", write_tokenizer(tmp_path), total_bytes=total) is None


@pytest.mark.usefixtures("splitter")
def test_an_input_that_is_not_here_counts_nothing(tmp_path: Path) -> None:
    assert count_tokens(tmp_path / "none.jsonl", write_tokenizer(tmp_path), total_bytes=10) is None


@pytest.mark.skipif(importlib.util.find_spec("tokenizers") is None, reason="the package `tokenizers` is optional")
def test_the_real_package_counts_the_same(tmp_path: Path) -> None:
    total = write_batch(tmp_path / "in.jsonl", "a drill that does not start", "a a a")

    counted = count_tokens(tmp_path / "in.jsonl", write_tokenizer(tmp_path), total_bytes=total)

    assert counted is not None and counted.tokens.likely == pytest.approx(6 + 3 + 2 * (4 + 3))


def test_a_line_that_cannot_be_read_is_left_out_of_the_sample(tmp_path: Path, splitter: None) -> None:
    total = write_batch(tmp_path / "x.jsonl", "a drill")
    with (tmp_path / "x.jsonl").open("ab") as file:
        file.write(b'{"body": "\xff"}\n{"body": ' + b"[" * 5000 + b"]" * 5000 + b"}\n")

    count = count_tokens(tmp_path / "x.jsonl", write_tokenizer(tmp_path), total_bytes=total)

    assert count is not None and "on 1 lines" in count.words
