"""`./inv notify`, and who has not been told in `./inv status RUN`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from schemas.errors import LeaseholdError, SpecError
from schemas.notify import NotifyTarget
from stacks.notifications import courier as courier_module
from stacks.notifications.notifier import Notifier
from stacks.planning.plan import save_plan
from stacks.run_folder import RunFolder, get_home
from stacks.verbs import telling
from stacks.verbs.telling import delivering_late, show_status, tell_again
from tests.stacks.notifications.hook_server import HookServer
from tests.stacks.notifications.test_late_delivery import find_dead_address
from tests.stacks.notifications.test_notifier import make_status, plan_telling, tell_end
from tests.stacks.run_files import make_folder


@pytest.fixture
def server() -> Iterator[HookServer]:
    server = HookServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "_FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(telling, "_RUN_PATIENCE_S", 0.2)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that has ended while its receiver was down."""
    folder = make_folder(get_home() / "runs")
    plan = plan_telling(NotifyTarget(type="webhook", url="env:HOOK"))
    save_plan(plan, folder.plan)
    status = make_status(ended_at="2026-11-25T00:00:00.000Z")
    folder.status.write_bytes(msgspec.json.encode(status))
    tell_end(folder, plan, status, patience_s=0.1, HOOK=find_dead_address())
    monkeypatch.setenv("HOOK", find_dead_address())
    return folder


def test_notify_tells_what_is_left_and_then_nothing_is(
    folder: RunFolder, server: HookServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOOK", server.url)

    assert tell_again("") == 0
    assert capsys.readouterr().out == "told: 2 notifications\n"
    assert tell_again("") == 0
    assert capsys.readouterr().out == "no run has news left to tell\n"
    assert tell_again("tick") == 0
    assert capsys.readouterr().out == "tickets-1: nothing is left to tell\n"
    assert server.events() == ["finished", "released"]


def test_notify_says_who_is_still_down_and_ends_with_1(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell_again("tickets-1") == 1

    assert "finished, released not told yet to webhook 127.0.0.1 (Connection refused)" in capsys.readouterr().err


def test_notify_without_the_address_ends_with_3_and_names_the_variable(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOOK")

    assert tell_again("") == 3
    assert "the environment variable HOOK is not set" in capsys.readouterr().err


def test_notify_of_a_run_that_another_process_tells_about_says_so(folder: RunFolder) -> None:
    other = Notifier(folder, plan_telling(NotifyTarget(type="webhook", url=find_dead_address())), {})

    with pytest.raises(Exception, match="another process is telling just now") as caught:
        tell_again("tickets-1")

    other.close(0)
    assert not isinstance(caught.value, SpecError)


def test_notify_of_all_runs_does_not_say_that_nothing_is_left_while_another_process_tells(
    folder: RunFolder, server: HookServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Notifier(folder, plan_telling(NotifyTarget(type="webhook", url=find_dead_address())), {})
    code = tell_again("")
    other.close(0)

    said = capsys.readouterr()
    assert (code, said.out) == (1, "")
    assert "tickets-1: another process is telling just now" in said.err
    monkeypatch.setenv("HOOK", server.url)
    assert tell_again("") == 0


def test_notify_of_a_run_whose_plan_is_gone_says_that(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.plan.unlink()

    with pytest.raises(SpecError, match="this run has no plan"):
        tell_again("tickets-1")
    assert tell_again("") == 1
    assert "this run has no plan" in capsys.readouterr().err


def test_the_status_of_a_run_names_who_has_not_been_told_and_what_to_do(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status("tickets-1", as_json=False)

    said = capsys.readouterr().err
    assert said.count("not told yet to webhook 127.0.0.1") == 1
    assert "./inv notify tickets-1 tries again" in said


def test_the_status_of_a_run_is_shown_after_the_news_are_told(
    folder: RunFolder, server: HookServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOOK", server.url)

    show_status("", as_json=False)
    show_status("tickets-1", as_json=False)

    assert server.events() == ["finished", "released"]
    assert capsys.readouterr().err == ""


def test_a_command_that_fails_tells_all_the_same_and_fails_as_it_did(
    folder: RunFolder, server: HookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", server.url)

    with pytest.raises(SpecError, match="wrong"), delivering_late():
        raise SpecError("wrong")

    assert server.events() == ["finished", "released"]


def test_a_damaged_plan_hides_no_status(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    Path(folder.plan).write_bytes(b"{")

    show_status("tickets-1", as_json=False)

    assert "tickets-1" in capsys.readouterr().out


def test_notify_says_of_a_folder_that_cannot_be_used_why_and_tells_the_other_runs(
    folder: RunFolder, server: HookServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOOK", server.url)
    odd = RunFolder(folder.root.with_name("odd-one"))
    shutil.copytree(folder.root, odd.root)
    odd.notifications_lock.unlink()
    odd.notifications_lock.mkdir()

    assert tell_again("") == 1

    said = capsys.readouterr()
    assert said.out == "told: 2 notifications\n"
    assert "odd-one: its notifications cannot be told (Is a directory)" in " ".join(said.err.split())
    with pytest.raises(LeaseholdError, match="Is a directory"):
        tell_again("odd-one")


def test_notify_takes_a_plan_that_cannot_be_read_for_no_other_process(folder: RunFolder) -> None:
    folder.plan.write_text("{")

    with pytest.raises(LeaseholdError) as caught:
        tell_again(folder.run)

    assert "another process" not in str(caught.value)
    assert "plan.json" in str(caught.value)
