"""What the processes of a run do not load: a run starts some 25 of them, and a user waits for most."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.wire

_HEAVY = {"aiohttp", "asyncssh", "httpx", "jinja2", "jsonschema", "numpy", "pulumi", "rich", "ruamel.yaml", "xllamacpp"}


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("runtime.dispatcher.__main__", set()),
        ("runtime.dispatcher.dispatcher", set()),
        ("stacks.lifecycle.lifecycle", set()),
        ("stacks.lifecycle.orphan_release", set()),
        ("providers.resources", {"pulumi"}),
        ("stacks.program", {"pulumi"}),
        ("toolchain.command_plugin.servicer", {"pulumi"}),
        ("providers.local.machine", set()),
        ("toolchain.installed", set()),
    ],
)
def test_a_process_of_a_run_loads_only_what_it_needs(module: str, needed: set[str]) -> None:
    script = f"import sys, {module}; print(*sorted(set(sys.modules) & {_HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert set(done.stdout.split()) == set(needed)


def test_a_stop_of_the_dispatcher_loads_nothing_that_runs_a_batch() -> None:
    script = "import sys, runtime.dispatcher.__main__; print('runtime.dispatcher.dispatcher' in sys.modules)"

    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60) == "False\n"


def test_a_process_finds_the_project_without_an_import_hook() -> None:
    """The editable install is a line in a .pth file; a finder of setuptools' own costs every process 10 ms."""
    script = "import sys; print(*[name for name in sys.modules if name.startswith('__editable__')])"

    assert subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60).strip() == ""
