"""Counts a batch's prompt tokens with the model's own tokenizer, on a sample of lines. Called by the planning.

Needs the file (on this computer: nothing is downloaded) and the package `tokenizers`, which nothing else here needs: without
either the plan goes on with bytes.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from schemas.home_path import expand_home
from schemas.template import ModelSource
from stacks.planning.estimate import TokenCount
from stacks.planning.span import Span

_SAMPLE = 300
# What a chat template puts around a message, and around the whole.
_TOKENS_PER_MESSAGE, _TOKENS_PER_REQUEST = 4, 3
_LEAST_ERROR = 0.03
_TEXT_KEYS = ("content", "prompt", "input", "query", "documents", "text")


class _Line(msgspec.Struct):
    body: msgspec.Raw


def find_tokenizer(source: ModelSource, environ: Mapping[str, str]) -> Path | None:
    """The tokenizer.json of a template's model: where tokenizer_path says, beside local weights, or in the hub's cache."""
    for name in (source.tokenizer_path, source.uri):
        path = expand_home(name)
        if not name or name.startswith("builtin:"):
            continue
        if path.name == "tokenizer.json" and path.is_file():
            return path
        if (path / "tokenizer.json").is_file():
            return path / "tokenizer.json"
        cached = _find_in_cache(name, source.revision, environ)
        if cached is not None:
            return cached
    return None


def count_tokens(path: Path, tokenizer: Path, *, total_bytes: int, line_limit: int = 0) -> TokenCount | None:
    """Prompt tokens of a batch whose bodies have total_bytes; None when the tokenizer or the file cannot be used here."""
    encode = _load_encoder(tokenizer)
    if encode is None:
        return None
    try:
        with path.open("rb") as file:
            rates = [_count_line(line, encode) for line in _sample_lines(file, path.stat().st_size, line_limit)]
    except OSError:
        return None
    counted = [rate for rate in rates if rate is not None]
    sampled_bytes = sum(size for _, size in counted)
    if not sampled_bytes:
        return None
    rate = sum(tokens for tokens, _ in counted) / sampled_bytes
    error = max(_LEAST_ERROR, _measure_error(counted, rate) / rate) if rate else _LEAST_ERROR
    span = Span(low=max(0.0, 1 - error), likely=1.0, high=1 + error).times(rate * total_bytes)
    words = f"counted with {tokenizer.parent.name}/{tokenizer.name} on {len(counted):,} lines, right to {error:.0%}"
    return TokenCount(tokens=span, words=words)


def _find_in_cache(name: str, revision: str, environ: Mapping[str, str]) -> Path | None:
    home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(environ.get("HF_HUB_CACHE") or home / "hub")
    folder = hub / f"models--{name.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    found = folder / "snapshots" / commit / "tokenizer.json"
    return found if commit and found.is_file() else None


def _load_encoder(tokenizer: Path) -> Any:
    try:
        library = importlib.import_module("tokenizers")
        return library.Tokenizer.from_file(str(tokenizer)).encode
    except Exception:
        # The package raises plain Exception for a file that it cannot read; a plan goes on without it.
        return None


def _sample_lines(file: BinaryIO, size: int, line_limit: int) -> Iterator[bytes]:
    """Lines from all over the file; of its first line_limit ones when there is a limit."""
    if line_limit:
        step = max(1, line_limit // _SAMPLE)
        for number, line in enumerate(file):
            if number >= line_limit:
                return
            if number % step == 0:
                yield line
        return
    if size < _SAMPLE * 4096:
        lines = file.readlines()
        yield from lines[:: max(1, len(lines) // _SAMPLE)]
        return
    for part in range(_SAMPLE):
        file.seek(size * part // _SAMPLE)
        if part:
            file.readline()
        yield file.readline()


def _count_line(line: bytes, encode: Any) -> tuple[int, int] | None:
    """Tokens and bytes of one body; None for a line that has none."""
    try:
        raw = bytes(msgspec.json.decode(line, type=_Line).body)
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    texts = list(_find_texts(body))
    tokens = sum(len(encode(text, add_special_tokens=False).ids) for text in texts)
    return tokens + _TOKENS_PER_MESSAGE * len(texts) + _TOKENS_PER_REQUEST, len(raw)


def _find_texts(value: Any, key: str = "body") -> Iterator[str]:
    """The texts of a body that the model reads."""
    if isinstance(value, str):
        if key in _TEXT_KEYS:
            yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _find_texts(item, name)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _find_texts(item, key)


def _measure_error(counted: Sequence[tuple[int, int]], rate: float) -> float:
    """Two standard errors of tokens a byte, of a sample's ratio."""
    mean = sum(size for _, size in counted) / len(counted)
    spread = sum((tokens - rate * size) ** 2 for tokens, size in counted) / max(1, len(counted) - 1)
    return 2 * math.sqrt(spread / len(counted)) / mean
