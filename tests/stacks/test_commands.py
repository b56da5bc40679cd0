"""Commands as text, compared with stored files, and run for real by sh in folders with odd names.

LEASEHOLD_UPDATE_GOLDEN=1 rewrites the files; read the difference before you do.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from runtime.dispatcher.dispatch_lock import LOCK, Holder
from schemas.machine import MachineRecord
from schemas.ssh import SshTarget
from stacks.commands import (
    render_dispatch_start,
    render_dispatch_stop,
    render_done,
    render_join,
    render_key_delivery,
    render_leave,
)
from stacks.run_folder import RunFolder
from stacks.runs.ledger import read_joined
from tests.stacks.run_files import make_folder, make_record

GOLDEN = Path(__file__).parent / "golden"
PYTHON = "/opt/leasehold/.venv/bin/python"
KEY_VARIABLE = "LEASEHOLD_TEST_ACCOUNT_KEY"
ODD_NAMES = ["plain", "-rf", """it's  "$HOME" `id` $(id) a;b&c|d 100%h ü\\n"""]


def make_target(folder: RunFolder, name: str = "lh-abcdefghijkl-0x1-tlqdn4") -> SshTarget:
    return SshTarget(
        host="127.0.0.1",
        port=1,
        user="root",
        key_file=str(folder.ssh_key),
        known_hosts_file=str(folder.host_keys / f"{name}.known_hosts"),
        alias=name,
    )


def render_all(folder: RunFolder) -> dict[str, str]:
    return {
        "dispatch-start": render_dispatch_start(folder, "/tmp/lh-1000-0123456789", PYTHON),
        "dispatch-stop": render_dispatch_stop(folder, "/tmp/lh-1000-0123456789", PYTHON),
        "join": render_join(folder, 0),
        "leave": render_leave(folder, 0, make_target(folder)),
        "done": render_done(folder, PYTHON),
    }


TEXTS = render_all(RunFolder(Path("/home/ada/my runs/tickets-1")))


def run(script: str, stdin: bytes = b"", *, path: str = "") -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": f"{path}:{os.environ['PATH']}".lstrip(":"), "HOME": "/nonexistent"}
    return subprocess.run(["sh", "-c", script], input=stdin, capture_output=True, timeout=20, env=environment)


@pytest.fixture(params=ODD_NAMES)
def odd_folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    (tmp_path / request.param).mkdir()
    return make_folder(tmp_path / request.param)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


@pytest.mark.parametrize("name", TEXTS)
def test_a_rendered_command_is_what_the_stored_file_says(name: str) -> None:
    path = GOLDEN / f"{name}.sh"
    if os.environ.get("LEASEHOLD_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(TEXTS[name])

    assert TEXTS[name] == path.read_text(), "see the file's head for how to rewrite"


def test_no_stored_file_is_left_without_a_command() -> None:
    assert sorted(path.stem for path in GOLDEN.iterdir()) == sorted(TEXTS)


@pytest.mark.wire
def test_every_command_is_read_by_sh_whatever_the_folders_name(odd_folder: RunFolder) -> None:
    for script in render_all(odd_folder).values():
        done = subprocess.run(["sh", "-n"], input=script.encode(), capture_output=True)

        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.wire
def test_join_puts_the_record_where_the_dispatcher_looks(odd_folder: RunFolder) -> None:
    record = make_record(port=2222)

    done = run(render_join(odd_folder, 0), msgspec.json.encode(record))

    assert (done.returncode, done.stderr) == (0, b"")
    assert msgspec.json.decode(odd_folder.machine(0).read_bytes(), type=MachineRecord) == record
    assert [path.name for path in odd_folder.machines.iterdir()] == ["0.json"]


@pytest.mark.wire
def test_join_again_takes_back_what_an_earlier_leave_has_asked(folder: RunFolder) -> None:
    for name in ("0.leaving", "0.drained"):
        (folder.machines / name).touch()

    run(render_join(folder, 0), b"{}")

    assert [path.name for path in folder.machines.iterdir()] == ["0.json"]


@pytest.mark.wire
def test_join_fails_where_the_run_has_no_folder(tmp_path: Path) -> None:
    assert run(render_join(RunFolder(tmp_path / "gone"), 0), b"{}").returncode != 0


@pytest.mark.wire
def test_leave_takes_the_record_away_and_keeps_that_it_was_there(odd_folder: RunFolder) -> None:
    odd_folder.machine(0).write_bytes(msgspec.json.encode(make_record()))
    os.utime(odd_folder.machine(0), (1000, 1000))

    done = run(render_leave(odd_folder, 0, make_target(odd_folder)))

    left = odd_folder.machines / "lh-abcdefghijkl-0x1-tlqdn4.left"
    assert (done.returncode, done.stdout) == (0, b"")
    assert read_joined(odd_folder) == []
    assert [path.name for path in odd_folder.machines.iterdir()] == [left.name]
    assert left.stat().st_mtime == 1000


@pytest.mark.wire
def test_leave_of_a_machine_that_never_joined_leaves_nothing(folder: RunFolder) -> None:
    done = run(render_leave(folder, 0, make_target(folder)))

    assert (done.returncode, list(folder.machines.iterdir())) == (0, [])


@pytest.mark.wire
def test_leave_succeeds_on_a_computer_without_the_folder(tmp_path: Path) -> None:
    done = run(render_leave(RunFolder(tmp_path / "gone"), 0, make_target(RunFolder(tmp_path / "gone"))))

    assert (done.returncode, done.stderr) == (0, b"")
    assert not (tmp_path / "gone").exists()


def write_lock(folder: RunFolder, pid: int) -> None:
    """The lock as the dispatcher itself writes it."""
    (folder.root / LOCK).write_bytes(msgspec.json.encode(Holder(pid=pid, started_at=0.0)))


@pytest.mark.wire
def test_leave_waits_until_a_live_dispatcher_has_drained_the_machine(folder: RunFolder) -> None:
    folder.machine(0).write_bytes(msgspec.json.encode(make_record()))
    with subprocess.Popen(["sleep", "20"]) as dispatcher:
        write_lock(folder, dispatcher.pid)
        script = render_leave(folder, 0, make_target(folder))
        with subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL) as leave:
            _wait_for(folder.machines / "0.leaving")
            assert leave.poll() is None and folder.machine(0).exists()

            (folder.machines / "0.drained").touch()

            assert leave.wait(10) == 0
        dispatcher.kill()
    assert [path.suffix for path in folder.machines.iterdir()] == [".left"]


@pytest.mark.wire
def test_leave_waits_for_no_dispatcher_that_is_dead(folder: RunFolder) -> None:
    folder.machine(0).write_bytes(msgspec.json.encode(make_record()))
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    write_lock(folder, dead.pid)
    started = time.monotonic()

    assert run(render_leave(folder, 0, make_target(folder))).returncode == 0
    assert time.monotonic() - started < 5


@pytest.mark.wire
def test_leave_fetches_the_engines_log_and_half_of_one_is_not_kept(odd_folder: RunFolder, tmp_path: Path) -> None:
    script = render_leave(odd_folder, 0, make_target(odd_folder))
    good, bad = tmp_path / "good", tmp_path / "bad"
    for place, words in ((good, 'for last; do :; done; echo "$last"'), (bad, "echo half; exit 1")):
        place.mkdir()
        (place / "ssh").write_text(f"#!/bin/sh\n{words}\n")
        (place / "ssh").chmod(0o755)

    run(script, path=str(good))
    run(script, path=str(bad))

    assert odd_folder.engine_log(0).read_text() == "tail -c 1000000 .leasehold/engine.log\n"
    assert not list(odd_folder.root.glob("*.new"))


@pytest.mark.wire
def test_dispatch_writes_the_manifest_and_starts_one_process_of_its_own_session(odd_folder: RunFolder) -> None:
    sockets = odd_folder.root / "s"
    stand_in = odd_folder.root.parent / "python"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\\\n" "$*"\nps -o sid= -p $$ | tr -d " " >session\necho $$ >pid\n')
    stand_in.chmod(0o755)

    done = run(render_dispatch_start(odd_folder, str(sockets), str(stand_in)), b'{"run": "x"}')

    _wait_for(odd_folder.root / "pid")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert odd_folder.manifest.read_text() == '{"run": "x"}'
    assert (odd_folder.root / "dispatch.log").read_text() == f"-m runtime.dispatcher {odd_folder.manifest}\n"
    assert (odd_folder.root / "session").read_text() == (odd_folder.root / "pid").read_text()
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert odd_folder.manifest.stat().st_mode & 0o077 == 0


@pytest.mark.wire
@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/false", sys.executable])
def test_dispatch_stop_ends_well_whatever_is_missing(python: str, folder: RunFolder) -> None:
    done = run(render_dispatch_stop(folder, str(folder.root / "sockets"), python))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.wire
def test_a_key_reaches_the_machine_on_standard_input_and_no_argument(odd_folder: RunFolder, tmp_path: Path) -> None:
    bin_folder, told = tmp_path / "bin", tmp_path / "told"
    bin_folder.mkdir()
    ssh = f'#!/bin/sh\ncat > {shlex.quote(str(told))}\nprintf "%s\\n" "$@" >> {shlex.quote(str(told))}\n'
    (bin_folder / "ssh").write_text(ssh)
    (bin_folder / "ssh").chmod(0o755)
    script = render_key_delivery(make_target(odd_folder), KEY_VARIABLE, 'cat > "$HOME/it\'s here"')
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", KEY_VARIABLE: "a-key 100%"}

    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, timeout=20)

    assert done.returncode == 0, done.stderr
    lines = told.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("a-key 100%", 'cat > "$HOME/it\'s here"')
    assert "a-key" not in script and "a-key" not in "".join(lines[1:])


@pytest.mark.wire
def test_without_the_key_it_fails_and_says_which(folder: RunFolder) -> None:
    done = run(render_key_delivery(make_target(folder), KEY_VARIABLE, "true"))

    assert (done.returncode, done.stderr.decode()) == (1, f"{KEY_VARIABLE} is not set, and limits.dead_man needs it\n")


@pytest.mark.wire
def test_done_becomes_the_process_that_waits(odd_folder: RunFolder) -> None:
    done = run(render_done(odd_folder, "/bin/echo"))

    assert done.stdout.decode() == f"-m stacks.lifecycle.done {odd_folder.root}\n"


def _wait_for(path: Path, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not (path.exists() and (path.stat().st_size or path.suffix)):
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.02)
