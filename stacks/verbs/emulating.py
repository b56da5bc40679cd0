"""What `emulate` does: runs the clouds' emulators in the foreground and prints the exports that point every command at them."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from providers.emulators.emulator import Emulator, EmulatorError, start_emulator
from providers.emulators.serving import CLOUDS
from schemas.errors import LeaseholdError, SpecError
from stacks.run_folder import get_home, prepare_home
from stacks.terminal.console import WORDS, print_text

# A pod boots in 50 to 84 of its cloud's seconds, an instance in 113 to 242.
SPEED = 30.0
# A create that was not answered shows itself within seconds here; the real clouds need their minutes.
SETTLE_S = 3.0
_REQUEST_TIMEOUT_S = 10.0


def run_emulators(cloud: str) -> int:
    """Serve until Ctrl-C, SIGTERM or SIGHUP, then end every emulated machine; cloud "" means all."""
    if cloud and cloud not in CLOUDS:
        raise SpecError(f"there is no emulator of {cloud!r}", fix=f"One of: {', '.join(CLOUDS)}; left out: all.")
    names = [cloud] if cloud else list(CLOUDS)
    home = get_home()
    prepare_home(home)
    stopped = threading.Event()
    with _hear_signals(stopped), _make_state_folder(home) as folder, contextlib.ExitStack() as stack:
        emulators = [stack.enter_context(_start(name, folder)) for name in names]
        print_text(render_emulator_exports(emulators))
        sys.stdout.flush()
        WORDS.print(_render_words(names, folder), style="dim")
        stopped.wait()
        WORDS.print("ending the emulators and their machines", style="dim")
    return 0


def render_emulator_exports(emulators: Iterable[Emulator], *, speed: float = SPEED) -> str:
    """Shell exports under which a job runs well against these emulators; safe to eval more than once."""
    exports = {
        "LEASEHOLD_EMULATOR_PACE": f"{speed:g}",
        "LEASEHOLD_REQUEST_TIMEOUT_S": f"{_REQUEST_TIMEOUT_S:g}",
        "LEASEHOLD_SETTLE_S": f"{SETTLE_S:g}",
    }
    for emulator in emulators:
        exports |= emulator.exports
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(exports.items()))


def _start(name: str, folder: Path) -> Emulator:
    try:
        return start_emulator(name, state_dir=folder / name, speed=SPEED)  # type: ignore[arg-type]
    except (EmulatorError, OSError, ValueError) as error:
        raise LeaseholdError(
            f"the emulator of {name} cannot start: {error}", where=str(folder), fix="Set LEASEHOLD_HOME elsewhere."
        ) from error


def _render_words(names: Sequence[str], folder: Path) -> str:
    return (
        f"emulating {' and '.join(names)}, {SPEED:g} times as fast as the clouds; machines and histories are in {folder}\n"
        "give these exports to another shell, for example `./inv run jobs/runpod-h100.yaml --yes`; Ctrl-C ends all"
    )


@contextlib.contextmanager
def _hear_signals(stopped: threading.Event) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda _number, _frame: stopped.set()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def _make_state_folder(home: Path) -> Iterator[Path]:
    """A folder of this call's own, gone with it: histories hold the host keys that were sent."""
    parent = home / "emulators"
    parent.mkdir(mode=0o700, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
