"""What runs have taught about a deployment, and the spans that follow from it. Written with the receipt, read by the next plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from schemas.template import EngineArg, Template
from stacks.planning.span import Span

# A prompt token costs about this share of an output token, because prompts are read in parallel.
PROMPT_SHARE = 0.08
_NEWEST = 5
# Below this, a machine's speed is that of getting going, and token counts are chance.
_MIN_WORK_S = 30.0
_MIN_REQUESTS = 20


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown about its template on its machines; all machines were of one kind.

    model: where its weights are from, since an inline template has no version. bytes: of the bodies of the requests that
    were answered; max_output_tokens: what these would have allowed, 0 when lines name no limit. work_s: seconds of work of
    all machines together; boot_s: the mean until a machine joined, None when they were of several clouds. cloud: where
    they were. is_emulated: its cloud was an emulator, which says nothing about a real one.
    """

    run: str
    job: str
    template: str
    model: str
    gpu: str
    count: int
    cloud: str = ""
    engine_args: Mapping[str, EngineArg] = {}
    requests: int
    bytes: float
    max_output_tokens: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    machines: int = 1
    work_s: float = 0.0
    boot_s: float | None = None
    is_emulated: bool = False

    @property
    def tokens_per_s(self) -> float | None:
        """Work tokens a second of one machine; None when it did not work for long enough to tell."""
        if self.requests < _MIN_REQUESTS or self.work_s < _MIN_WORK_S * self.machines:
            return None
        return (self.output_tokens + PROMPT_SHARE * self.prompt_tokens) / self.work_s or None


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """A span that runs have taught, and which runs."""

    span: Span
    runs: tuple[str, ...]


class Experience(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a deployment from the user's own runs; None where nothing is.

    output_share: of max_tokens; output_per_request: where lines name none.
    """

    tokens_per_s: Lesson | None = None
    boot_minutes: Lesson | None = None
    tokens_per_byte: Lesson | None = None
    output_share: Lesson | None = None
    output_per_request: Lesson | None = None


def learn(
    measured: Sequence[Measured],
    *,
    job: str,
    template: str,
    model: str,
    gpu: str,
    count: int,
    cloud: str,
    engine_args: Mapping[str, EngineArg],
) -> Experience:
    """What the newest runs (newest first) of the same deployment show; lengths of texts only from runs of the same job,
    boots only from the same cloud: a container is there in seconds, a virtual machine in minutes.
    """
    same = [
        each
        for each in measured
        if (each.template, each.model, each.gpu, each.count) == (template, model, gpu, count)
        and dict(each.engine_args) == dict(engine_args)
    ]
    here = [each for each in same if each.cloud == cloud]
    texts = [each for each in same if each.job == job and each.requests >= _MIN_REQUESTS]
    return Experience(
        tokens_per_s=_teach(same, lambda each: each.tokens_per_s, spread=1.3),
        boot_minutes=_teach(here, lambda each: each.boot_s / 60 if each.boot_s else None, spread=1.5),
        tokens_per_byte=_teach(texts, lambda each: _divide(each.prompt_tokens, each.bytes), spread=1.1),
        output_share=_teach(texts, lambda each: _divide(each.output_tokens, each.max_output_tokens), spread=1.2),
        output_per_request=_teach(texts, lambda each: _divide(each.output_tokens, each.requests), spread=1.2),
    )


def name_weights(template: Template) -> str:
    """What a template loads: quantized weights of their own, else the model's."""
    return template.spec.quantization.weights_artifact_uri or template.spec.model_source.uri


def _divide(part: float, whole: float) -> float | None:
    return part / whole if part and whole else None


def _teach(measured: Sequence[Measured], read: Callable[[Measured], float | None], *, spread: float) -> Lesson | None:
    """One run leaves a margin of `spread` on both sides; of several, what they showed, with a smaller one."""
    found = [(value, each.run) for each in measured if (value := read(each))][:_NEWEST]
    if not found:
        return None
    values = sorted(value for value, _ in found)
    margin = spread if len(values) == 1 else spread**0.5
    span = Span(low=values[0] / margin, likely=sum(values) / len(values), high=values[-1] * margin)
    return Lesson(span=span, runs=tuple(run for _, run in found))
