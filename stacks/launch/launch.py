"""How an engine is started and read on a machine: a template and an offer become POSIX shell scripts. Pure.

Called by the Pulumi program, whose remote Commands run the scripts over SSH; compared with stored files in tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
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

# Exit codes of the start script. The life cycle gives a machine back whose GPU check failed and tries the next offer.
NO_SECRET = 2
ENGINE_EXITED = 41
GPU_CHECK_FAILED = 42
NEVER_HEALTHY = 43
LEASE_REVOKED = 44

Where = Literal["local", "pod", "vm"]

_FOLDER = Path(__file__).parent
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


def render_engine_start(launch: EngineLaunch) -> str:
    """The script that starts the engine and waits until it is healthy; safe to run twice.

    Standard input: the engine's key, a newline, the hub's token or nothing, a newline. Exit codes: the constants above.
    """
    return render_engine_settings(launch) + _read_scripts("engine_born", "engine_process", "engine_start")


def render_engine_log(launch: EngineLaunch, *, lines: int = 2000) -> str:
    """The script that prints the end of the engine's log, secrets taken out; exits 0 always."""
    settings = f"container={_quote(launch.container)}\nlog_lines={lines}\n"
    return settings + _read_scripts("engine_born", "engine_process", "engine_log")


def render_engine_settings(launch: EngineLaunch) -> str:
    """The part of the start script in which one launch differs from another."""
    gpu = launch.gpu or GpuCheck(count=0, min_memory_mib=0, timeout_s=0)
    return f"""set -eu
port={launch.port}
health_path={_quote(launch.health_path)}
ready_timeout_s={launch.ready_timeout_s}
gpu_count={gpu.count}
gpu_memory_mib={gpu.min_memory_mib}
gpu_timeout_s={gpu.timeout_s}
key_variable={launch.key_variable}
needs_hf_token={"yes" if launch.needs_hf_token else "no"}
container={_quote(launch.container)}
print_engine_script() {{
  cat <<'LEASEHOLD_ENGINE'
{_render_engine_file(launch)}LEASEHOLD_ENGINE
}}
"""


def _render_engine_file(launch: EngineLaunch) -> str:
    """What runs as the engine's process: engine.sh. It tells its number and birth, prepares, and becomes the engine."""
    command = _render_docker(launch) if launch.where == "vm" else _render_direct(launch)
    return "#!/bin/sh\n" + _read_scripts("engine_born", "engine_head") + "".join(command)


def _render_direct(launch: EngineLaunch) -> Iterator[str]:
    for name, value in launch.environment:
        yield f"export {name}={_quote(value)}\n"
    if launch.cache_dir:
        yield f"export HF_HOME={_quote(launch.cache_dir)}\n"
    if launch.where == "pod":
        yield _read_scripts("engine_pod")
    if launch.package:
        yield from _render_install(launch)
    program = launch.arguments[0]
    yield f"if ! command -v {program} >/dev/null 2>&1; then echo 'there is no {program} on PATH' >&2; exit 127; fi\n"
    key = (' \\\n  --api-key-file "$HOME/.leasehold/engine.key"',) if launch.kind == "llamacpp" else ()
    yield f"exec {_render_arguments(launch.arguments)}{''.join(key)}\n"


def _render_install(launch: EngineLaunch) -> Iterator[str]:
    name, _, version = launch.package.partition("==")
    is_there = f"command -v {name} >/dev/null 2>&1" if launch.kind == "vllm" else _render_has_module(name)
    if launch.is_pinned:
        # A command without a package of its name is somebody's own, and taken as it is.
        check = "import sys; from importlib.metadata import distributions; "
        check += f'found = [d.version for d in distributions(name="{name}")] or ["{version}"]; '
        check += f'sys.exit(found[0].split("+")[0] != "{version}")'
        is_there += f" && python3 -c {_quote(check)}"
    yield f"if ! {{ {is_there}; }}; then\n"
    yield f"  echo 'installing {launch.package}'\n"
    yield "  if command -v uv >/dev/null 2>&1; then\n"
    yield f"    uv pip install --system --break-system-packages {_quote(launch.package)}\n"
    yield "  else\n"
    yield "    PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \\\n"
    yield f"      python3 -m pip install --no-input --disable-pip-version-check {_quote(launch.package)}\n"
    yield "  fi || exit\n"
    yield "fi\n"


def _render_has_module(name: str) -> str:
    return "python3 -c " + _quote(f'import importlib.util, sys; sys.exit(importlib.util.find_spec("{name}") is None)')


def _render_docker(launch: EngineLaunch) -> Iterator[str]:
    program, *arguments = launch.arguments
    yield f"cache={_quote(launch.cache_dir)}\n" if launch.cache_dir else "cache=$HOME/.cache/huggingface\n"
    yield _read_scripts("engine_vm")
    # The host's network: the engine itself listens on the loopback address only, and downloads need no address
    # translation. The variables' values stand in the file.
    options = ["--rm", "--init", "--name", launch.container, "--gpus", "all", "--ipc=host", "--network=host"]
    options += ["--ulimit", "memlock=-1", "--ulimit", "stack=67108864"]
    for name, value in launch.environment:
        options += ["--env", f"{name}={value}"]
    for mount in launch.mounts:
        options += ["--mount", f"type=bind,source={mount},target={mount},readonly"]
    yield f"exec $sudo {_render_arguments(['docker', 'run', *options])} \\\n"
    yield '  --env-file "$HOME/.leasehold/engine.env" \\\n'
    yield '  --volume "$cache:/root/.cache/huggingface" \\\n'
    yield f"  --entrypoint {_quote(program)} \\\n"
    yield f"  {_quote(launch.image)} \\\n  {_render_arguments(arguments)}\n"


def _render_arguments(arguments: Iterable[str]) -> str:
    """Quoted, with an option and its value on a line of their own."""
    text = ""
    for argument in arguments:
        is_option = re.match(r"--?[A-Za-z]", argument) is not None
        text += (" \\\n  " if is_option else " ") + _quote(argument) if text else _quote(argument)
    return text


def _make_gpu_check(template: Template, offer: Offer) -> GpuCheck:
    memory_gb = template.spec.accelerator.vram_gb or offer.memory_gb
    return GpuCheck(count=template.spec.accelerator.count, min_memory_mib=int(memory_gb * 1024 * _REPORTED_SHARE))


def _refuse(template: Template, refusals: Sequence[Refusal]) -> None:
    if refusals:
        where = f"template {template.reference}"
        raise SpecError("; ".join(map(str, refusals)), where=where, fix=refusals[0].fix)


def _read_scripts(*names: str) -> str:
    return "".join((_FOLDER / f"{name}.sh").read_text(encoding="utf-8") for name in names)


def _quote(text: str) -> str:
    return shlex.quote(text)


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
