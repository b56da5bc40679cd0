"""Which folder may import which, as docs/architecture.md draws it; and the few places where the world is let in."""

from __future__ import annotations

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("schemas", "providers", "runtime", "stacks", "toolchain")
MAY_IMPORT = {
    "schemas": {"schemas"},
    "providers": {"providers", "schemas"},
    "runtime": {"runtime", "schemas"},
    "stacks": {"stacks", "providers", "runtime", "schemas", "toolchain"},
    "toolchain": {"toolchain", "schemas"},
}
# What stacks may know of the runtime: what the dispatcher is told, the check of its input, what it finds done already,
# and what is in S3.
RUNTIME_FOR_STACKS = {
    "runtime.dispatcher.manifest",
    "runtime.batch.batch_input",
    "runtime.resuming.adoption",
    "runtime.objects.object_settings",
    "runtime.objects.object_store",
    "runtime.objects.output_prefix",
    "runtime.objects.prefix_results",
    "runtime.resuming.takeover",
}
# The floors of a room, the lowest first: what stands there imports what stands before it, and never what comes after. A
# name is a folder or a file; files that have no floor are the attic, which imports everything.
FLOORS = {
    "stacks": (
        "run_folder",
        "process_mark",
        "stack_call",
        "stack",
        "terminal",
        "launch",
        "policy",
        "planning",
        "runs",
        "notifications",
        "releasing",
        "lifecycle",
        "report",
        "verbs",
    ),
    "providers": (
        "clock",
        "cloud",
        "closed_cloud",
        "http",
        "settings",
        "gpus",
        "interconnect",
        "lease",
        "local",
        "runpod",
        "lambda_cloud",
    ),
    "runtime": ("batch", "engines", "objects", "dispatcher", "resuming"),
}
ONLY_IN = {
    "pulumi": {"providers/resources.py", "stacks/program.py", "stacks/__main__.py", "toolchain/command_plugin"},
    "pulumi_command": {"stacks/program.py"},
    "httpx": {"providers/http/http_client.py"},
    "obstore": {"runtime/objects/object_store.py", "runtime/objects/object_errors.py"},
}
READS_ENVIRONMENT = {
    "providers/emulators",
    "providers/local/environment.py",
    "providers/open_clouds.py",
    "providers/resources.py",
    "runtime/dispatcher/delivery.py",
    "runtime/dispatcher/dispatcher.py",
    "runtime/objects/object_store.py",
    "stacks/__main__.py",
    "stacks/verbs/dispatching.py",
    "stacks/verbs/doctor.py",
    "stacks/verbs/emulating.py",
    "stacks/lifecycle/__main__.py",
    "stacks/planning/object_access.py",
    "stacks/verbs/offers.py",
    "stacks/lifecycle/orphan_release.py",
    "stacks/planning/planning.py",
    "stacks/program.py",
    "stacks/releasing/reaping.py",
    "stacks/run_folder.py",
    "stacks/notifications/lone_courier.py",
    "stacks/verbs/running.py",
    "stacks/verbs/start.py",
    "stacks/verbs/telling.py",
    "stacks/releasing/token_release.py",
    "toolchain",
}


def list_modules() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@functools.cache
def parse(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def list_imports(path: Path) -> Iterator[str]:
    for node in parse(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: a relative import"
            yield node.module


def name_module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def draw_imports() -> dict[str, set[str]]:
    """Which module of ours imports which, also inside functions and where only types are checked; the command line's and the
    benchmarks' too."""
    paths = {
        name_module(path): path for path in [*list_modules(), *(ROOT / "benchmarks").rglob("*.py"), ROOT / "tasks.py"]
    }
    drawing = {}
    for module, path in paths.items():
        named = {*list_imports(path)}
        for node in parse(path):
            if isinstance(node, ast.ImportFrom):
                named |= {f"{node.module}.{alias.name}" for alias in node.names}
        drawing[module] = named & paths.keys()
    return drawing


def reads_environment(path: Path) -> bool:
    """Whether the code, not a text in it, names os.environ or os.getenv."""
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
        for node in parse(path)
    )


def is_below(path: Path, places: set[str]) -> bool:
    relative = path.relative_to(ROOT).as_posix()
    return any(relative == place or relative.startswith(f"{place}/") for place in places)


def test_there_is_something_to_look_at() -> None:
    assert len(list_modules()) > 100


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_arrows_allow(room: str) -> None:
    wrong = []
    for path in (ROOT / room).rglob("*.py"):
        for name in list_imports(path):
            target = name.split(".")[0]
            if target in ROOMS and target not in MAY_IMPORT[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if room == "stacks" and target == "runtime" and name not in RUNTIME_FOR_STACKS:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")

    assert wrong == []


@pytest.mark.parametrize("room", FLOORS)
def test_every_folder_of_a_room_has_its_floor(room: str) -> None:
    folders = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}

    assert folders - {"emulators", "models"} <= set(FLOORS[room])


@pytest.mark.parametrize(("room", "floor"), [(room, floor) for room, floors in FLOORS.items() for floor in floors])
def test_what_has_a_floor_imports_only_what_stands_below_it(room: str, floor: str) -> None:
    below = {*FLOORS[room][: FLOORS[room].index(floor) + 1]}
    folder, file = ROOT / room / floor, ROOT / room / f"{floor}.py"
    paths = [file] if file.exists() else sorted(folder.rglob("*.py"))
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in list_imports(path)
        if name.startswith(f"{room}.") and name.split(".")[1] not in below
    ]

    assert paths
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    drawing = draw_imports()
    try:
        graphlib.TopologicalSorter(drawing).prepare()
        circle = []
    except graphlib.CycleError as error:
        circle = error.args[1]

    assert circle == []
    assert sum(len(named) for named in drawing.values()) > 500


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_used_only_where_it_belongs(package: str) -> None:
    users = [path for path in list_modules() if package in {name.split(".")[0] for name in list_imports(path)}]

    assert users
    assert [path for path in users if not is_below(path, ONLY_IN[package])] == []


def test_the_environment_is_read_in_few_places() -> None:
    readers = [path for path in list_modules() if reads_environment(path)]

    assert [str(path.relative_to(ROOT)) for path in readers if not is_below(path, READS_ENVIRONMENT)] == []


def test_packages_have_empty_init_files() -> None:
    full = [path for path in list_modules() if path.name == "__init__.py" and path.read_text().strip()]

    assert full == []
