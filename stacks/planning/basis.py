"""What an estimate stands on, each figure from the best source: the user's own receipts, the tokenizer, the table. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from providers.cloud import Offer
from schemas.job import Job
from schemas.template import Template
from stacks.planning.estimate import Assumption, Basis, InputSummary
from stacks.planning.experience import PROMPT_SHARE, Experience, Lesson, Measured, learn, name_weights
from stacks.planning.span import Span, make_even
from stacks.planning.throughput import ModelSize, find_speed, measure_model
from stacks.terminal.count_words import count_things

_GENERATING = ("/v1/chat/completions", "/v1/completions")
# English in JSON has about 4 bytes a token; code, digits and other scripts have fewer, long keys and markup more.
_TOKENS_PER_BYTE = Span(low=1 / 6, likely=1 / 4, high=1 / 2.5)
# Most answers end by themselves before max_tokens.
_OUTPUT_SHARE = Span(low=0.25, likely=0.6, high=1.0)
_OUTPUT_PER_REQUEST = Span(low=100.0, likely=300.0, high=1000.0)
_RENTED_BOOT = Span(low=2.0, likely=4.0, high=12.0)
_LOCAL_BOOT = Span(low=0.05, likely=0.1, high=0.5)
# Gigabytes of weights a machine fetches in a minute.
_DOWNLOAD = Span(low=1 / 120, likely=1 / 30, high=1 / 9)
_RENTED_RELEASE_MINUTES, _LOCAL_RELEASE_MINUTES = 1.0, 0.1


def choose_basis(
    job: Job, template: Template, offer: Offer, summary: InputSummary, measured: Sequence[Measured] = ()
) -> Basis:
    """The assumptions for a job on the offer that is tried first; measured: what earlier receipts say, newest first."""
    known = learn(
        measured,
        job=job.name,
        template=template.reference,
        model=name_weights(template),
        gpu=offer.gpu,
        count=offer.count,
        cloud=offer.cloud,
        engine_args=template.spec.engine_args,
    )
    prompt = _choose_prompt(summary, known)
    output = _choose_output(job, summary, known)
    return Basis(
        prompt_tokens=prompt,
        output_tokens=output,
        tokens_per_s=_choose_speed(template, offer, known),
        boot_minutes=_choose_boot(template, offer, known),
        work_tokens=output.span.plus(prompt.span.times(PROMPT_SHARE)),
        release_minutes=_LOCAL_RELEASE_MINUTES if offer.cloud == "local" else _RENTED_RELEASE_MINUTES,
    )


def _choose_prompt(summary: InputSummary, known: Experience) -> Assumption:
    if summary.counted is not None:
        return Assumption(span=summary.counted.tokens, source="tokenizer", words=summary.counted.words)
    if known.tokens_per_byte is not None:
        return _from_lesson(known.tokens_per_byte, summary.bytes, "tokens a byte as")
    words = f"{summary.bytes:,} bytes of requests at 4 bytes a token; 6 to 2.5 are possible"
    return Assumption(span=_TOKENS_PER_BYTE.times(summary.bytes), source="guess", words=words)


def _choose_output(job: Job, summary: InputSummary, known: Experience) -> Assumption:
    if job.endpoint not in _GENERATING:
        return Assumption(span=make_even(0), source="limits", words=f"{job.endpoint} writes none")
    named, silent = summary.max_tokens_sum, summary.requests_without_max_tokens
    if named and not silent and known.output_share is not None:
        return _from_lesson(known.output_share, named, "share of max_tokens as")
    if not named and silent and known.output_per_request is not None:
        return _from_lesson(known.output_per_request, silent, "tokens a request as")
    words = []
    if named:
        words.append(f"a quarter / 60 % / all of the {named:,} that max_tokens allows")
    if silent:
        words.append(f"100 / 300 / 1,000 a request for {count_things(silent, 'request')} without max_tokens")
    span = _OUTPUT_SHARE.times(named).plus(_OUTPUT_PER_REQUEST.times(silent))
    return Assumption(span=span, source="limits" if named and not silent else "guess", words=", ".join(words))


def _choose_speed(template: Template, offer: Offer, known: Experience) -> Assumption:
    if known.tokens_per_s is not None:
        return _from_lesson(known.tokens_per_s, 1, "as")
    speed = find_speed(offer.gpu, offer.count, measure_model(template))
    return Assumption(span=speed.tokens_per_s, source="guess" if offer.gpu == "cpu" else "table", words=speed.words)


def _choose_boot(template: Template, offer: Offer, known: Experience) -> Assumption:
    if known.boot_minutes is not None:
        return _from_lesson(known.boot_minutes, 1, "as")
    if offer.cloud == "local":
        return Assumption(span=_LOCAL_BOOT, source="guess", words="a process on this computer")
    size: ModelSize = measure_model(template)
    span = _RENTED_BOOT.plus(_DOWNLOAD.times(size.weight_gb))
    words = f"until its engine answers, {size.weight_gb:,.0f} GB of weights fetched"
    return Assumption(span=span, source="guess", words=words)


def _from_lesson(lesson: Lesson, factor: float, what: str) -> Assumption:
    noun = "run" if len(lesson.runs) == 1 else "runs"
    runs = ", ".join(lesson.runs[:3]) + (f" and {len(lesson.runs) - 3} more" if len(lesson.runs) > 3 else "")
    return Assumption(span=lesson.span.times(factor), source="receipts", words=f"{what} in your own {noun} {runs}")
