"""An engine's own view of its load, read from Prometheus text: vLLM, SGLang and llama.cpp. Called by the replica."""

from __future__ import annotations

import msgspec

# Sums over label sets (one per data-parallel rank), except the last, which is the fullest rank's.
_RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
_PREEMPTIONS = ("vllm:num_preemptions_total",)
# Only vLLM's counter moves with each token; llama.cpp's jumps when an answer ends, which would look like a stall.
_GENERATED = ("vllm:generation_tokens_total",)
_CACHE_USE = ("vllm:kv_cache_usage_perc", "sglang:token_usage", "llamacpp:kv_cache_usage_ratio")
_NAMES = frozenset((*_RUNNING, *_WAITING, *_PREEMPTIONS, *_GENERATED, *_CACHE_USE))


class EngineLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Requests running and waiting in the engine, share of its KV cache in use, counters since it started (-1: not told)."""

    running: float
    waiting: float
    cache_use: float = 0.0
    preemptions: float = 0.0
    generated_tokens: float = -1.0


def parse_load(text: bytes) -> EngineLoad | None:
    """The load that a metrics page tells, or None when it is not one of an engine we know."""
    samples: dict[str, list[float]] = {}
    for line in text.splitlines():
        if line[:1] in b"#\n" or b":" not in line:
            continue
        name, value = _parse_sample(line)
        if name in _NAMES:
            samples.setdefault(name, []).append(value)
    running, waiting = _pick(samples, _RUNNING), _pick(samples, _WAITING)
    if not running or not waiting:
        return None
    generated = _pick(samples, _GENERATED)
    return EngineLoad(
        running=sum(running),
        waiting=sum(waiting),
        cache_use=max(_pick(samples, _CACHE_USE), default=0.0),
        preemptions=sum(_pick(samples, _PREEMPTIONS)),
        generated_tokens=sum(generated) if generated else -1.0,
    )


def _pick(samples: dict[str, list[float]], names: tuple[str, ...]) -> list[float]:
    return next((samples[name] for name in names if name in samples), [])


def _parse_sample(line: bytes) -> tuple[str, float]:
    """Name and value of `name{labels} value [time]`; an unreadable line has the name ""."""
    head, _, tail = line.decode("utf-8", "replace").partition("{")
    if tail:
        name, fields = head, tail.rpartition("}")[2].split()
    else:
        name, *fields = head.split()
    try:
        value = float(fields[0])
    except (IndexError, ValueError):
        return "", 0.0
    return (name, value) if value == value else ("", 0.0)
