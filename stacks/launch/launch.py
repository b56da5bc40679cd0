"""How a template's engine runs on an offer's machine: its command, its image or package, what is checked before. Pure; called by
the Pulumi program, by the policy and by the checks of a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from providers.cloud import Offer
from schemas.engine_flags import OURS, find_flags
from schemas.errors import SpecError
from schemas.template import Template
from stacks.launch.llamacpp import list_llamacpp_refusals, make_llamacpp_arguments
from stacks.launch.refusal import Refusal
from stacks.launch.sglang import SGLANG_KEY_VARIABLE, list_sglang_refusals, make_sglang_arguments
from stacks.launch.vllm import find_weights, make_vllm_arguments

Where = Literal["local", "pod", "vm"]

_WHERE: dict[str, Where] = {"local": "local", "runpod": "pod", "lambda": "vm"}
# A GPU sold as 48 GB reports 46,068 MiB, one sold as 24 GB 23,028: less than the round number, never a tenth less.
_REPORTED_SHARE = 0.9


class GpuCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What nvidia-smi must report before the engine starts; timeout_s: how long a driver may still need."""

    count: int
    min_memory_mib: int
    timeout_s: int = 20


class EngineLaunch(msgspec.Struct, frozen=True, kw_only=True):
    """One engine on one machine. arguments is the whole command; on a vm it runs in a container of `image`.

    where: "pod" and "local" run the command itself, "vm" through docker. package: what pip installs on a pod that has no
    such engine, "" = nothing; is_pinned: also when the pod has another version. cache_dir: where downloaded models are
    kept, "" = below the home folder. mounts: folders of the machine that the container sees read-only.
    """

    kind: Literal["vllm", "llamacpp", "sglang"]
    where: Where
    arguments: tuple[str, ...]
    port: int
    health_path: str = "/health"
    ready_timeout_s: int = 1800
    image: str = ""
    container: str = ""
    package: str = ""
    is_pinned: bool = False
    gpu: GpuCheck | None = None
    key_variable: str = ""
    needs_hf_token: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    cache_dir: str = ""
    mounts: tuple[str, ...] = ()


class _Engine(msgspec.Struct, frozen=True, kw_only=True):
    """What this file knows of one kind of engine; key_variable "" means that the key goes in by its file."""

    make_arguments: Callable[..., tuple[str, ...]]
    list_refusals: Callable[[Template], list[Refusal]] = lambda template: []
    key_variable: str = ""
    package: str = ""
    image: str = ""
    environment: tuple[tuple[str, str], ...] = ()


def make_engine_launch(
    template: Template,
    offer: Offer,
    *,
    port: int,
    image: str = "",
    cache_dir: str = "",
    checks_gpu: bool = True,
    ready_timeout_s: int = 0,
) -> EngineLaunch:
    """Decide how a template's engine runs on an offer's machine; raises SpecError for what the engine cannot honour.

    image (of the candidate) and ready_timeout_s win over the template's when they are set.
    """
    spec = template.spec
    where = _WHERE.get(offer.cloud, "vm")
    engine = _ENGINES[spec.engine.type]
    _refuse(template, list_launch_refusals(template, offer.cloud))
    image = image or spec.engine.image
    version = spec.engine.version.removeprefix("v").replace("latest", "")
    launch = EngineLaunch(
        kind=spec.engine.type,
        where=where,
        arguments=engine.make_arguments(template, port=port),
        port=port,
        health_path=spec.engine.health_endpoint,
        ready_timeout_s=ready_timeout_s or spec.engine.ready_timeout_s,
        gpu=_make_gpu_check(template, offer) if checks_gpu and offer.gpu != "cpu" else None,
        key_variable=engine.key_variable,
        needs_hf_token=bool(spec.model_source.auth_secret_ref),
        environment=engine.environment,
        cache_dir=cache_dir,
    )
    if where == "vm":
        return msgspec.structs.replace(
            launch,
            image=image or f"{engine.image}:{f'v{version}' if version else 'latest'}",
            container=f"leasehold-engine-{port}",
            mounts=tuple(path for path in (find_weights(template),) if path.startswith("/")),
        )
    if where == "pod":
        package = f"{engine.package}=={version}" if version else engine.package
        return msgspec.structs.replace(launch, package=package, is_pinned=bool(version) and not image)
    return launch


def list_launch_refusals(template: Template, cloud: str) -> list[Refusal]:
    """Everything that the template asks for and its engine cannot honour on a cloud's machines."""
    spec = template.spec
    ours = "is set by Leasehold"
    refusals = [
        Refusal(path=f"engine.serve_args.{flag.index}", message=f"{flag.word} {ours}", fix="Remove it.")
        for flag in find_flags(spec.engine.serve_args)
        if flag.option in OURS
    ]
    refusals += [
        Refusal(path=f"engine_args.{name}", message=f"it {ours}", fix="Remove it.")
        for name in spec.engine_args
        if name in OURS
    ]
    refusals += _ENGINES[spec.engine.type].list_refusals(template)
    if spec.engine.type == "llamacpp" and _WHERE.get(cloud, "vm") != "local":
        message = "llamacpp runs on local machines only"
        refusals.append(Refusal(path="engine.type", message=message, fix="Take vllm for a rented GPU."))
    return refusals


def _make_gpu_check(template: Template, offer: Offer) -> GpuCheck:
    memory_gb = template.spec.accelerator.vram_gb or offer.memory_gb
    return GpuCheck(count=template.spec.accelerator.count, min_memory_mib=int(memory_gb * 1024 * _REPORTED_SHARE))


def _refuse(template: Template, refusals: Sequence[Refusal]) -> None:
    if refusals:
        where = f"template {template.reference}"
        raise SpecError("; ".join(map(str, refusals)), where=where, fix=refusals[0].fix)


_ENGINES = {
    "vllm": _Engine(
        make_arguments=make_vllm_arguments,
        key_variable="VLLM_API_KEY",
        package="vllm",
        image="vllm/vllm-openai",
        # vLLM reports its use to its makers unless it is told not to.
        environment=(("VLLM_NO_USAGE_STATS", "1"),),
    ),
    "sglang": _Engine(
        make_arguments=make_sglang_arguments,
        list_refusals=list_sglang_refusals,
        key_variable=SGLANG_KEY_VARIABLE,
        package="sglang",
        image="lmsysorg/sglang",
    ),
    "llamacpp": _Engine(make_arguments=make_llamacpp_arguments, list_refusals=list_llamacpp_refusals),
}
