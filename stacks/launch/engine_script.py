"""The POSIX shell scripts that start an engine on a machine and read its log. Pure.

Called by the Pulumi program, whose remote Commands run the scripts over SSH; compared with stored files in tests.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from stacks.launch.launch import EngineLaunch, GpuCheck

# Exit codes of the start script. The life cycle gives a machine back whose GPU check failed and tries the next offer.
NO_SECRET = 2
ENGINE_EXITED = 41
GPU_CHECK_FAILED = 42
NEVER_HEALTHY = 43
LEASE_REVOKED = 44

_FOLDER = Path(__file__).parent


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


def _read_scripts(*names: str) -> str:
    return "".join((_FOLDER / f"{name}.sh").read_text(encoding="utf-8") for name in names)


def _quote(text: str) -> str:
    return shlex.quote(text)
