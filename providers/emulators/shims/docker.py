"""`docker` on an emulated Lambda host: a "container" is a process of the host with a fresh environment; images are not pulled."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from providers.emulators.machines.machine_file import find_own_folder, load_machine_file
from providers.emulators.shims.docker_run import ContainerRequest, UsageError, read_run
from providers.emulators.shims.sudo import AS_ROOT
from providers.emulators.shims.vllm import PORT_MAP
from schemas.files import replace_file

_STOP_GRACE_S = 3.0
_START_TIMEOUT_S = 5.0
_FOLLOW_S = 0.1
_DENIED = (
    "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock: dial unix"
    " /var/run/docker.sock: connect: permission denied"
)


class Container(msgspec.Struct, kw_only=True, frozen=True):
    """containers/<name>.json in the machine's folder; exit_code None while it runs."""

    id: str
    name: str
    image: str
    command: list[str]
    pid: int = 0
    exit_code: int | None = None

    @property
    def is_running(self) -> bool:
        return self.exit_code is None and is_alive(self.pid)


class Shelf:
    """The containers of this machine."""

    def __init__(self) -> None:
        self.folder = find_own_folder() / "containers"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def all(self) -> list[Container]:
        return [load(path) for path in sorted(self.folder.glob("*.json"))]

    def find(self, name: str) -> Container | None:
        return next((box for box in self.all() if box.name == name or (name and box.id.startswith(name))), None)

    def save(self, box: Container) -> None:
        replace_file(self.folder / f"{box.name}.json", msgspec.json.encode(box), mode=0o600)

    def log(self, box: Container) -> Path:
        return self.folder / f"{box.name}.log"

    def remove(self, box: Container) -> None:
        (self.folder / f"{box.name}.json").unlink(missing_ok=True)
        self.log(box).unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    words = list(arguments)
    if words[:1] == ["container"]:
        words.pop(0)
    if not words or words[0] in ("--version", "version"):
        sys.stdout.write("Docker version 27.5.1, build emulated\n")
        return 0
    if os.environ.get(AS_ROOT) != "1":
        sys.stderr.write(_DENIED + "\n")
        return 1
    action = ACTIONS.get(words[0])
    if action is None:
        sys.stderr.write(f"docker: '{words[0]}' is not a docker command.\n")
        return 1
    try:
        return action(Shelf(), words[1:])
    except UsageError as error:
        sys.stderr.write(f"docker: {error}\n")
        return 125


def run(shelf: Shelf, words: list[str]) -> int:
    request = read_run(words, os.environ)
    name = request.name or f"box_{secrets.token_hex(4)}"
    if shelf.find(name) is not None:
        raise UsageError(f'Error response from daemon: Conflict. The container name "/{name}" is already in use.')
    machine = load_machine_file(find_own_folder())
    if request.has_gpus and machine.nvidia_smi in ("absent", "failing", "no_devices"):
        raise UsageError("Error response from daemon: could not select device driver with capabilities: [[gpu]].")
    box = Container(id=secrets.token_hex(32), name=name, image=request.image, command=request.command())
    shelf.save(box)
    if request.detach:
        if os.fork() == 0:
            detach(shelf, box, request)
        wait_until_started(shelf, box)
        sys.stdout.write(box.id + "\n")
        return 0
    return keep(shelf, box, request, None)


def wait_until_started(shelf: Shelf, box: Container) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = shelf.find(box.name)
        if found is None or found.pid or found.exit_code is not None:
            return
        time.sleep(0.01)


def detach(shelf: Shelf, box: Container, request: ContainerRequest) -> None:
    """Be the container's keeper, apart from the shell that asked for it; never returns."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    code = 1
    try:
        code = keep(shelf, box, request, shelf.log(box))
    finally:
        os._exit(code)


def keep(shelf: Shelf, box: Container, request: ContainerRequest, log: Path | None) -> int:
    """Run the container's process to its end and note its exit code."""
    with contextlib.ExitStack() as stack:
        output = None if log is None else stack.enter_context(log.open("ab"))
        try:
            process = subprocess.Popen(
                box.command,
                env=make_environment(request),
                stdin=subprocess.DEVNULL if log is not None else None,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            sys.stderr.write(f"docker: Error response from daemon: exec: {error}\n")
            shelf.save(msgspec.structs.replace(box, exit_code=127))
            return 127
        shelf.save(msgspec.structs.replace(box, pid=process.pid))
        if log is None:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, lambda got, _frame: os.killpg(process.pid, got))
        code = process.wait()
    code = 128 - code if code < 0 else code
    if request.remove:
        shelf.remove(box)
    elif shelf.find(box.name) is not None:
        shelf.save(msgspec.structs.replace(box, pid=process.pid, exit_code=code))
    return code


def make_environment(request: ContainerRequest) -> dict[str, str]:
    """What the image and the command line give; of the host only what makes it a part of the machine."""
    folder = find_own_folder()
    marks = {name: value for name, value in os.environ.items() if name.startswith("LEASEHOLD_MACHINE_")}
    shims = Path(load_machine_file(folder).shim_root) / "container"
    path = f"{shims}:{folder}/bin:/usr/local/bin:/usr/bin:/bin"
    return {
        "HOME": str(folder / "root"),
        "PATH": path,
        "LANG": "C.UTF-8",
        PORT_MAP: msgspec.json.encode(request.ports).decode(),
        **request.environment,
        **marks,
    }


def remove(shelf: Shelf, words: list[str]) -> int:
    is_forced = bool({"-f", "--force", "-fv", "-vf"} & set(words))
    code = 0
    for name in [word for word in words if not word.startswith("-")]:
        box = shelf.find(name)
        if box is None:
            sys.stderr.write(f"Error response from daemon: No such container: {name}\n")
            code |= 0 if is_forced else 1
            continue
        if box.is_running and not is_forced:
            sys.stderr.write(f'Error response from daemon: cannot remove container "/{name}": container is running\n')
            code = 1
            continue
        # First the record, so that the container's keeper finds nothing to write its exit code into.
        shelf.remove(box)
        end(box, grace_s=0)
        sys.stdout.write(name + "\n")
    return code


def stop(shelf: Shelf, words: list[str]) -> int:
    """Also `kill`."""
    for name in [word for word in words if not word.startswith("-") and not word.isdigit()]:
        box = shelf.find(name)
        if box is None:
            sys.stderr.write(f"Error response from daemon: No such container: {name}\n")
            return 1
        end(box, grace_s=_STOP_GRACE_S)
        sys.stdout.write(name + "\n")
    return 0


def show_logs(shelf: Shelf, words: list[str]) -> int:
    box = shelf.find(words[-1] if words else "")
    if box is None:
        sys.stderr.write(f"Error response from daemon: No such container: {words[-1] if words else ''}\n")
        return 1
    text = shelf.log(box).read_text(errors="replace") if shelf.log(box).exists() else ""
    tail = next((after for flag, after in itertools.pairwise(words) if flag in ("-n", "--tail")), "")
    tail = tail or next((word.split("=", 1)[1] for word in words if word.startswith("--tail=")), "")
    lines = text.splitlines(keepends=True)
    sys.stdout.write("".join(lines[-int(tail) :] if tail.isdigit() and int(tail) else lines))
    sys.stdout.flush()
    if {"-f", "--follow"} & set(words):
        follow(shelf, box, len(text))
    return 0


def follow(shelf: Shelf, box: Container, shown: int) -> None:
    while True:
        is_running = (shelf.find(box.name) or box).is_running
        text = shelf.log(box).read_text(errors="replace") if shelf.log(box).exists() else ""
        sys.stdout.write(text[shown:])
        sys.stdout.flush()
        shown = len(text)
        if not is_running:
            return
        time.sleep(_FOLLOW_S)


def show_list(shelf: Shelf, words: list[str]) -> int:
    wanted = next((word.partition("name=")[2].strip("^$/") for word in words if "name=" in word), "")
    show_all = bool({"-a", "--all", "-aq", "-qa"} & set(words))
    boxes = [box for box in shelf.all() if wanted in box.name and (show_all or box.is_running)]
    only_ids = bool({"-q", "--quiet", "-aq", "-qa"} & set(words))
    for box in boxes:
        state = "Up 1 minute" if box.is_running else f"Exited ({box.exit_code})"
        sys.stdout.write(f"{box.id[:12]}\n" if only_ids else f"{box.id[:12]}  {box.image}  {state}  {box.name}\n")
    return 0


def inspect(shelf: Shelf, words: list[str]) -> int:
    names = [word for word in words if not word.startswith("-") and "{{" not in word]
    box = shelf.find(names[-1] if names else "")
    if box is None:
        sys.stderr.write(f"Error: No such object: {names[-1] if names else ''}\n")
        return 1
    state = {
        "Status": "running" if box.is_running else "exited",
        "Running": box.is_running,
        "ExitCode": box.exit_code or 0,
        "Pid": box.pid if box.is_running else 0,
    }
    template = next((word for word in words if "{{" in word), "").partition("=")[2] or next(
        (word for word in words if "{{" in word), ""
    )
    if not template:
        whole = [{"Id": box.id, "Name": f"/{box.name}", "State": state, "Config": {"Image": box.image}}]
        sys.stdout.write(msgspec.json.encode(whole).decode() + "\n")
        return 0
    for key, value in state.items():
        template = template.replace(
            "{{.State." + key + "}}", str(value).lower() if isinstance(value, bool) else str(value)
        )
    sys.stdout.write(template.replace("{{.Id}}", box.id).replace("{{.Name}}", f"/{box.name}") + "\n")
    return 0


def wait(shelf: Shelf, words: list[str]) -> int:
    box = shelf.find(words[0] if words else "")
    while box is not None and box.is_running:
        time.sleep(_FOLLOW_S)
        box = shelf.find(box.name)
    if box is None:
        return 1
    sys.stdout.write(f"{box.exit_code or 0}\n")
    return 0


def succeed(_shelf: Shelf, _words: list[str]) -> int:
    """`pull`, `info`, `login` and the like."""
    return 0


def end(box: Container, *, grace_s: float) -> None:
    """SIGTERM, a grace, SIGKILL, to the container's whole process group."""
    if box.pid == 0:
        return
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(ProcessLookupError):
        if grace_s and box.is_running:
            os.killpg(box.pid, signal.SIGTERM)
        while is_alive(box.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if is_alive(box.pid):
            os.killpg(box.pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    if pid == 0:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def load(path: Path) -> Container:
    return msgspec.json.decode(path.read_bytes(), type=Container)


ACTIONS: dict[str, Callable[[Shelf, list[str]], int]] = {
    "run": run,
    "rm": remove,
    "stop": stop,
    "kill": stop,
    "logs": show_logs,
    "ps": show_list,
    "ls": show_list,
    "inspect": inspect,
    "wait": wait,
    "pull": succeed,
    "info": succeed,
    "login": succeed,
    "image": succeed,
    "images": succeed,
    "system": succeed,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
