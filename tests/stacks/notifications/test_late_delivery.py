"""What ended runs could not tell is told by whoever comes later: in order, once, with the same ids, and quickly."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from schemas.errors import LeaseholdError
from schemas.events import read_events
from schemas.notify import NotifyTarget
from schemas.status import format_time
from stacks.notifications import courier as courier_module
from stacks.notifications import late_delivery, lone_courier
from stacks.notifications.late_delivery import LateDelivery, deliver, find_overdue, list_waiting
from stacks.notifications.lone_courier import keep_trying, read_patience, start_courier
from stacks.notifications.notifier import Notifier
from stacks.notifications.outbox import Outbox
from stacks.notifications.text import make_notification
from stacks.planning.plan import save_plan
from stacks.run_folder import RunFolder
from tests.stacks.notifications.hook_server import HANG, HANG_UP, HookServer
from tests.stacks.notifications.test_notifier import hook, make_status, plan_telling, tell_end
from tests.stacks.run_files import make_folder

MakeServer = Callable[..., HookServer]


@pytest.fixture
def serve() -> Iterator[MakeServer]:
    made: list[HookServer] = []

    def make(*answers: int) -> HookServer:
        made.append(HookServer(*answers))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "_FIRST_DELAY_S", 0.02)
    monkeypatch.setattr(lone_courier, "_TRY_PATIENCE_S", 0.2)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path


@pytest.fixture
def folder(home: Path) -> RunFolder:
    """A run that has ended while its receiver, of the address in HOOK, was down."""
    folder = make_folder(home / "runs")
    plan = plan_telling(NotifyTarget(type="webhook", url="env:HOOK"))
    save_plan(plan, folder.plan)
    tell_end(folder, plan, make_status(), patience_s=0.1, HOOK=find_dead_address())
    return folder


def find_dead_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/hook"


def list_events(folder: RunFolder) -> list[str]:
    return [event.event for event, _ in read_events(folder.events)]


def put_news(folder: RunFolder, at: float) -> None:
    """One more piece of news, of that time."""
    told = make_notification(plan_telling(), make_status(), "finished", format_time(at))
    Outbox(folder.notifications).put(msgspec.structs.replace(told, id=f"at {at}"), ["job notify[0]"])


def test_what_a_receiver_missed_while_it_was_down_is_told_later_in_order_with_its_ids_and_times(
    folder: RunFolder, serve: MakeServer
) -> None:
    server = serve()
    missed = [letter.notification for letter in Outbox(folder.notifications).read().values()]

    told, left = deliver(folder, {"HOOK": server.url}, patience_s=5)

    assert (told, left) == (2, [])
    assert [(call.data["event"], call.data["id"], call.data["time"]) for call in server.calls] == [
        (each.event, each.id, each.time) for each in missed
    ]
    assert list_events(folder)[-2:] == ["notification_sent"] * 2


def test_what_was_acknowledged_is_never_told_again(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    deliver(folder, {"HOOK": server.url}, patience_s=5)

    assert deliver(folder, {"HOOK": server.url}, patience_s=5, refused_too=True) == (0, [])
    assert len(server.calls) == 2


def test_an_environment_that_names_more_receivers_tells_them_no_old_news(folder: RunFolder, serve: MakeServer) -> None:
    server, stranger = serve(), serve()

    deliver(folder, {"HOOK": server.url, "LEASEHOLD_NOTIFY_WEBHOOK": stranger.url}, patience_s=5)

    assert (len(server.calls), len(stranger.calls)) == (2, 0)


def test_what_was_refused_for_good_is_told_again_only_to_whoever_asks_for_it(
    folder: RunFolder, serve: MakeServer
) -> None:
    deliver(folder, {"HOOK": serve(404).url}, patience_s=5)
    server = serve()

    assert deliver(folder, {"HOOK": server.url}, patience_s=5) == (0, [])
    assert server.calls == []
    assert deliver(folder, {"HOOK": server.url}, patience_s=5, refused_too=True) == (2, [])
    assert server.events() == ["finished", "released"]


def test_what_is_left_names_the_receiver_and_the_reason_and_no_address(folder: RunFolder) -> None:
    address = f"{find_dead_address()}?token=hidden-part"

    _, (left,) = deliver(folder, {"HOOK": address}, patience_s=0.2)
    (unset,) = list_waiting(folder, {})

    assert str(left) == "tickets-1: finished, released not told yet to webhook 127.0.0.1 (Connection refused)"
    assert unset.receiver == "job notify[0]"
    assert unset.why == "the environment variable HOOK is not set"
    assert "hidden-part" not in folder.events.read_text()


def test_an_answer_that_is_about_one_piece_of_news_holds_up_no_other(folder: RunFolder, serve: MakeServer) -> None:
    server = serve(500, 200)

    told, (left,) = deliver(folder, {"HOOK": server.url}, patience_s=5)

    assert (told, left.events, left.why) == (1, ("finished",), "")
    assert server.events() == ["finished", "released"]


def test_a_receiver_that_does_not_answer_is_asked_once_so_that_the_order_is_kept(
    folder: RunFolder, serve: MakeServer
) -> None:
    server = serve(HANG_UP, 200)

    told, (left,) = deliver(folder, {"HOOK": server.url}, patience_s=5)

    assert server.events() == ["finished"]
    assert (told, left.events) == (0, ("finished", "released"))


def test_a_variable_that_is_not_set_any_more_is_named(home: Path) -> None:
    folder = make_folder(home / "runs", "other-1")
    save_plan(plan_telling(), folder.plan)
    tell_end(folder, plan_telling(), make_status(), patience_s=0.1, LEASEHOLD_NOTIFY_SLACK=find_dead_address())

    (left,) = list_waiting(folder, {})

    assert (left.receiver, left.why) == ("LEASEHOLD_NOTIFY_SLACK", "LEASEHOLD_NOTIFY_SLACK is not set here")


def test_while_another_process_tells_nobody_else_does(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    notifier = Notifier(folder, plan_telling(hook(serve(HANG))), {})

    with pytest.raises(LeaseholdError):
        deliver(folder, {"HOOK": server.url}, patience_s=5)

    notifier.close(0.1)
    assert server.calls == []
    assert deliver(folder, {"HOOK": server.url}, patience_s=5)[0] == 2


def test_a_command_tells_the_news_of_all_runs_beside_its_work(home: Path, folder: RunFolder, serve: MakeServer) -> None:
    server = serve()

    left = LateDelivery(home, {"HOOK": server.url}).wait()

    assert left == []
    assert server.events() == ["finished", "released"]


def test_a_command_is_held_up_only_shortly_and_the_next_one_not_at_all(
    home: Path, folder: RunFolder, serve: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_delivery, "COMMAND_PATIENCE_S", 0.3)
    server = serve(HANG)
    began = time.monotonic()

    (left,) = LateDelivery(home, {"HOOK": server.url}).wait()
    first_s = time.monotonic() - began
    again = LateDelivery(home, {"HOOK": server.url}).wait()

    assert left.events == ("finished", "released")
    assert 0.25 < first_s < 1
    assert again == []
    assert time.monotonic() - began - first_s < 0.2
    assert len(server.calls) == 1


def test_a_run_whose_folder_cannot_be_used_keeps_no_other_run_from_being_told(
    home: Path, folder: RunFolder, serve: MakeServer
) -> None:
    server = serve()
    odd = RunFolder(home / "runs" / "an-older-one")
    shutil.copytree(folder.root, odd.root)
    odd.notifications_lock.unlink()
    odd.notifications_lock.mkdir()
    folder.root.chmod(0o700)  # changed last, so it is the later run
    assert [each.run for each in find_overdue(home, time.time())] == [odd.run, folder.run]

    assert LateDelivery(home, {"HOOK": server.url}).wait() == []

    assert [call.data["event"] for call in server.calls] == ["finished", "released"]


def test_without_a_home_there_is_nothing_to_tell_and_nothing_is_made(tmp_path: Path) -> None:
    assert LateDelivery(tmp_path / "none", {}).wait() == []
    assert list(tmp_path.iterdir()) == []


def test_old_news_is_told_only_when_the_run_is_named(home: Path, folder: RunFolder, serve: MakeServer) -> None:
    deliver(folder, {"HOOK": serve().url}, patience_s=5)
    put_news(folder, time.time() - 4 * 86400)
    assert find_overdue(home, time.time()) == []

    put_news(folder, time.time() - 2 * 86400)

    assert [each.run for each in find_overdue(home, time.time())] == [folder.run]


def test_an_outbox_that_nobody_has_written_for_days_is_not_even_read(home: Path, folder: RunFolder) -> None:
    assert [each.run for each in find_overdue(home, time.time())] == [folder.run]
    old = time.time() - 4 * 86400
    os.utime(folder.notifications, (old, old))

    assert find_overdue(home, time.time()) == []


def test_a_courier_of_its_own_goes_on_until_the_receiver_is_back(folder: RunFolder, serve: MakeServer) -> None:
    server = serve(503, 503, 503, 503, 200)

    assert keep_trying(folder, {"HOOK": server.url}, patience_s=5, first_pause_s=0.05)

    assert [call.data["event"] for call in server.calls] == ["finished", "released"] * 3


def test_a_courier_of_its_own_ends_with_its_patience_or_with_the_runs_folder(folder: RunFolder, tmp_path: Path) -> None:
    dead = {"HOOK": find_dead_address()}
    assert not keep_trying(folder, dead, patience_s=0.05, first_pause_s=0.1)

    folder.root.rename(tmp_path / "moved")

    assert keep_trying(folder, dead, patience_s=60, first_pause_s=30)


@pytest.mark.parametrize("environ", [{"CI": "true"}, {"LEASEHOLD_NOTIFY_PATIENCE_S": "0"}])
def test_no_courier_is_started_where_its_process_would_be_killed_or_is_not_wanted(
    folder: RunFolder, environ: dict[str, str]
) -> None:
    assert start_courier(folder, {"HOOK": find_dead_address(), **environ}) is None


def test_no_courier_is_started_when_all_is_told(folder: RunFolder, serve: MakeServer) -> None:
    deliver(folder, {"HOOK": serve().url}, patience_s=5)

    assert start_courier(folder, {"HOOK": find_dead_address()}) is None


def test_a_patience_that_is_no_number_is_the_usual_one() -> None:
    assert (read_patience({}), read_patience({"LEASEHOLD_NOTIFY_PATIENCE_S": "long"})) == (1800, 1800)
    assert read_patience({"LEASEHOLD_NOTIFY_PATIENCE_S": "7"}) == 7


def test_no_courier_is_started_for_a_receiver_whose_variable_is_not_set(folder: RunFolder) -> None:
    assert start_courier(folder, {}) is None
    assert not keep_trying(folder, {}, patience_s=60, first_pause_s=30), (
        "not all is told, and it does not wait for that"
    )


@pytest.mark.parametrize("endless", ["nan", "inf"])
def test_a_patience_without_an_end_is_the_usual_one(endless: str) -> None:
    assert read_patience({"LEASEHOLD_NOTIFY_PATIENCE_S": endless}) == 1800


@pytest.mark.wire
def test_the_process_that_is_started_after_a_run_tells_what_was_left(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    environ = {"PATH": os.environ["PATH"], "HOOK": server.url, "LEASEHOLD_NOTIFY_PATIENCE_S": "60"}

    process = start_courier(folder, environ)

    assert process is not None
    assert os.getsid(process.pid) == process.pid, "a closed terminal must not end it"
    assert process.wait(30) == 0
    assert server.events() == ["finished", "released"]
