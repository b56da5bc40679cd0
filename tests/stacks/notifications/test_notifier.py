"""Telling others how a run goes: what is told to whom and when, with retries, signed, and never in the run's way."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.events import read_events
from schemas.job import Limits
from schemas.notify import NotifyTarget
from schemas.status import MachineStatus, RequestCounts, Status
from stacks.notifications import courier as courier_module
from stacks.notifications.notifier import Notifier, tell_end_in_place
from stacks.notifications.outbox import Letter, Outbox
from stacks.notifications.text import make_notification, render_slack, render_summary
from stacks.planning.plan import Plan, save_plan
from stacks.policy.policy import PolicyResult
from stacks.run_folder import RunFolder
from tests.stacks.notifications.hook_server import HANG, HANG_UP, HookServer
from tests.stacks.run_files import make_folder, make_job, plan_for

SECRET = "s3cret-of-the-hook"
ENVIRONMENT = {"HOOK_SECRET": SECRET}
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


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "_FIRST_DELAY_S", 0.02)


def plan_telling(*targets: NotifyTarget, max_usd: float | None = 10) -> Plan:
    return plan_for(make_job(notify=targets, limits=Limits(max_usd=max_usd, max_hours=1)))


def hook(server: HookServer, path: str = "/hook", **fields: Any) -> NotifyTarget:
    return NotifyTarget(type="webhook", url=f"{server.url}{path}", **fields)


def make_status(state: str = "completed", released: str = "verified", **fields: Any) -> Status:
    counts = RequestCounts(total=10, completed=9, failed=1)
    values = {"run": "tickets-1", "job": "tickets", "state": state, "released": released, "exit_code": 10}
    return msgspec.convert(values | {"request_counts": counts, "message": "9 of 10 answered"} | fields, Status)


def tell_end(folder: RunFolder, plan: Plan, status: Status, patience_s: float = 5, **environ: str) -> float:
    """Tell the end, close, and say how long that took."""
    began = time.monotonic()
    notifier = Notifier(folder, plan, {**ENVIRONMENT, **environ})
    notifier.tell_end(status)
    notifier.close(patience_s)
    return time.monotonic() - began


def wait_for(is_so: Callable[[], bool], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_all(folder: RunFolder) -> list[tuple[str, str]]:
    return [(event.event, event.message) for event, _ in read_events(folder.events)]


def test_the_end_and_the_release_are_told_with_what_happened(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    plan = plan_telling(hook(server))

    tell_end(folder, plan, make_status())

    assert server.events() == ["finished", "released"]
    told = server.calls[0].data
    assert (told["run"], told["job"], told["state"], told["exit_code"]) == ("tickets-1", "tickets", "completed", 10)
    assert told["request_counts"] == {"total": 10, "completed": 9, "failed": 1}
    assert server.calls[0].headers["x-leasehold-id"] == told["id"] != server.calls[1].data["id"]
    assert [event for event, _ in read_all(folder)] == ["notification_sent"] * 2


@pytest.mark.parametrize(
    ("state", "event"),
    [
        ("completed", "finished"),
        ("failed", "failed"),
        ("resource_failed", "failed"),
        ("submit_failed", "failed"),
        ("expired", "expired"),
        ("cancelled", "cancelled"),
    ],
)
def test_every_way_to_end_has_its_event(folder: RunFolder, serve: MakeServer, state: str, event: str) -> None:
    server = serve()

    tell_end(folder, plan_telling(hook(server)), make_status(state, "unverified"))

    assert server.events() == [event, "release_unverified"]


def test_a_release_that_is_not_verified_is_loud_and_names_what_is_left(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    left = MachineStatus(index=0, cloud="runpod", id="p7", name="lh-x", state="unconfirmed", usd_per_hour=2.99)
    gone = msgspec.structs.replace(left, id="p8", state="gone")
    status = make_status(released="unverified", machines=(left, gone))
    plan = plan_telling(hook(server, on=("release_unverified",)))
    notification = make_notification(plan, status, "release_unverified", "now")

    tell_end(folder, plan, status)

    (call,) = server.calls
    assert call.data["machines_left"] == ["runpod p7 at 2.99 USD/h"]
    slack = json.loads(render_slack(notification))["text"]
    assert "RELEASE NOT VERIFIED" in slack and "runpod p7 at 2.99 USD/h" in slack
    assert "./inv release tickets-1" in slack
    assert "[!CAUTION]" in render_summary(notification)


def test_the_body_is_signed_with_the_secret_that_is_only_referred_to(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()

    tell_end(folder, plan_telling(hook(server, secret="env:HOOK_SECRET")), make_status())

    for call in server.calls:
        expected = hmac.new(SECRET.encode(), call.body, hashlib.sha256).hexdigest()
        assert call.headers["x-leasehold-signature"] == f"sha256={expected}"


def test_without_a_secret_nothing_is_signed(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()

    tell_end(folder, plan_telling(hook(server)), make_status())

    assert server.calls and not any("x-leasehold-signature" in call.headers for call in server.calls)


@pytest.mark.parametrize("status", [500, 503, 408, 425, 429])
def test_a_receiver_that_fails_once_is_told_again_with_the_same_id(
    folder: RunFolder, serve: MakeServer, status: int
) -> None:
    server = serve(status, 200)

    tell_end(folder, plan_telling(hook(server, on=("finished",))), make_status())

    assert len(server.calls) == 2
    assert server.calls[0].body == server.calls[1].body
    events = read_all(folder)
    assert [event for event, _ in events] == ["notification_failed", "notification_sent"]
    assert events[0][1].endswith(f"HTTP {status}")


@pytest.mark.parametrize("status", [400, 404, 410, 302])
def test_a_refusal_and_a_redirect_are_not_tried_again(folder: RunFolder, serve: MakeServer, status: int) -> None:
    server = serve(status)

    tell_end(folder, plan_telling(hook(server, on=("finished",))), make_status())

    assert [call.path for call in server.calls] == ["/hook"]
    assert [event for event, _ in read_all(folder)] == ["notification_failed", "notification_given_up"]


def test_a_receiver_that_always_fails_is_given_up_after_a_bounded_number_of_tries(
    folder: RunFolder, serve: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "_LAST_DELAY_S", 0.03)
    server = serve(503)

    took_s = tell_end(folder, plan_telling(hook(server, on=("finished",))), make_status())

    assert len(server.calls) == courier_module.MAX_TRIES
    assert read_all(folder)[-1][0] == "notification_waiting", "whoever comes later tries again"
    assert took_s < 4


def test_a_receiver_that_hangs_holds_up_neither_the_others_nor_the_end(folder: RunFolder, serve: MakeServer) -> None:
    working = serve()
    plan = plan_telling(*(hook(serve(HANG)) for _ in range(3)), hook(working))

    took_s = tell_end(folder, plan, make_status(), patience_s=0.5)

    assert working.events() == ["finished", "released"]
    assert 0.4 < took_s < 0.95, "the bound is for all of them together"
    waiting = [message for event, message in read_all(folder) if event == "notification_waiting"]
    assert len(waiting) == 6


def test_telling_returns_at_once_while_the_receiver_hangs(folder: RunFolder, serve: MakeServer) -> None:
    notifier = Notifier(folder, plan_telling(hook(serve(HANG))), {})
    began = time.monotonic()

    for usd in (5.0, 8.0, 10.0):
        notifier.watch_budget(make_status("in_progress", "no", usd_so_far=usd))

    assert time.monotonic() - began < 0.2
    notifier.close(0.1)


def test_a_receiver_that_is_not_there_costs_nothing_but_an_event(folder: RunFolder) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/hook"

    took_s = tell_end(folder, plan_telling(NotifyTarget(type="webhook", url=url)), make_status(), patience_s=0.3)

    assert took_s < 2
    assert ("notification_failed", "finished not told to webhook 127.0.0.1: Connection refused") in read_all(folder)


def test_each_level_of_the_budget_is_told_once(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    notifier = Notifier(folder, plan_telling(hook(server)), {})

    for usd in (4.99, 5.0, 5.5, 8.5, 8.6, 9.9):
        notifier.watch_budget(make_status("in_progress", "no", usd_so_far=usd))
    notifier.watch_budget(make_status("finalizing", "no", usd_so_far=9.95), usd=10.0)
    notifier.close(5)

    assert [(call.data["event"], call.data["percent"]) for call in server.calls] == [
        ("budget", 50),
        ("budget", 80),
        ("budget", 100),
    ]
    assert len({call.data["id"] for call in server.calls}) == 3
    assert server.calls[0].data["max_usd"] == 10


def test_without_a_limit_in_usd_there_is_no_budget_to_tell(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    notifier = Notifier(folder, plan_telling(hook(server), max_usd=None), {})

    notifier.watch_budget(make_status("in_progress", "no", usd_so_far=1e6))
    notifier.close(1)

    assert server.calls == []


def test_only_what_a_target_asked_for_is_told_to_it(folder: RunFolder, serve: MakeServer) -> None:
    some, everything = serve(), serve()
    plan = plan_telling(hook(some, on=("failed", "released")), hook(everything))

    tell_end(folder, plan, make_status())

    assert some.events() == ["released"]
    assert everything.events() == ["finished", "released"]


def test_job_policy_and_environment_are_all_told(folder: RunFolder, serve: MakeServer, tmp_path: Path) -> None:
    job, policy, environment, slack = serve(), serve(), serve(), serve()
    result = PolicyResult(file="policy.yaml", rules=(), notify=(hook(policy),))
    plan = msgspec.structs.replace(plan_telling(hook(job)), policy=result)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")

    tell_end(
        folder,
        plan,
        make_status(),
        LEASEHOLD_NOTIFY_WEBHOOK=f"{environment.url}/x?token=t",
        LEASEHOLD_NOTIFY_SECRET=SECRET,
        LEASEHOLD_NOTIFY_SLACK=f"{slack.url}/services/T0/B0",
        GITHUB_STEP_SUMMARY=str(summary),
    )

    for server in (job, policy, environment):
        assert server.events() == ["finished", "released"]
    assert all("x-leasehold-signature" in call.headers for call in environment.calls)
    assert all(set(call.data) == {"text"} for call in slack.calls)
    assert "9 of 10 requests answered, 1 failed" in slack.calls[0].data["text"]
    assert summary.read_text().startswith("before\n### tickets-1: finished\n")
    assert "### tickets-1: released, verified" in summary.read_text()


def test_while_there_is_no_answer_at_all_everything_waits_in_order(
    folder: RunFolder, serve: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "MAX_TRIES", 2)
    monkeypatch.setattr(courier_module, "_LAST_DELAY_S", 0.03)
    server = serve(HANG_UP, HANG_UP, HANG_UP, 200)

    tell_end(folder, plan_telling(hook(server)), make_status())

    assert server.events() == ["finished"] * 4 + ["released"]


def test_after_a_long_silence_the_end_is_told_at_once_and_in_order(
    folder: RunFolder, serve: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A receiver that was down when the budget was told is between two tries, far apart, when the run ends."""
    monkeypatch.setattr(courier_module, "_FIRST_DELAY_S", 60)
    monkeypatch.setattr(courier_module, "_LAST_DELAY_S", 60)
    server = serve(503, 200)
    notifier = Notifier(folder, plan_telling(hook(server)), {})
    notifier.watch_budget(make_status("in_progress", "no", usd_so_far=5.0))
    wait_for(lambda: "notification_failed" in dict(read_all(folder)))

    notifier.tell_end(make_status())
    notifier.close(5)

    assert server.events() == ["budget", "budget", "finished", "released"]


def test_slacks_own_characters_are_escaped() -> None:
    told = make_notification(plan_telling(), make_status(message="<!channel> a & b"), "failed", "now")

    assert "&lt;!channel&gt; a &amp; b" in json.loads(render_slack(told))["text"]


IMPOSSIBLE = [
    (NotifyTarget(type="webhook", url="env:NOT_SET"), "NOT_SET is not set"),
    (NotifyTarget(type="webhook", url="https://hooks.example.org/x", secret="env:NOT_SET"), "NOT_SET is not set"),
    (NotifyTarget(type="webhook", url="env:ODD"), "it holds no http address"),
    (NotifyTarget(type="webhook", url="env:NO_HOST"), "it holds no http address"),
    (NotifyTarget(type="slack", url="env:PLAIN"), "the address is not https"),
    (NotifyTarget(type="slack", url="env:USER"), "holds a user or password"),
    (NotifyTarget(type="slack", url="file:/does/not/exist"), "missing, empty or no text"),
]


@pytest.mark.parametrize(("target", "words"), IMPOSSIBLE)
def test_a_target_that_cannot_be_told_is_an_event_and_no_failure(
    folder: RunFolder, target: NotifyTarget, words: str
) -> None:
    addresses = {
        "ODD": "hidden-part",
        "NO_HOST": "https://a..b/hidden-part",
        "PLAIN": "http://hooks.example.org/hidden-part",
        "USER": "https://u:hidden-part@hooks.example.org/",
    }

    tell_end(folder, plan_telling(target), make_status(), **addresses)

    ((event, message),) = read_all(folder)
    assert event == "notification_impossible"
    assert words in message and "hidden-part" not in message


def test_no_secret_and_no_part_of_an_address_but_its_host_is_written_anywhere(
    folder: RunFolder, serve: MakeServer
) -> None:
    good, bad = serve(), serve(500, 404)
    targets = [
        NotifyTarget(type="webhook", url="env:GOOD", secret="env:HOOK_SECRET"),
        NotifyTarget(type="slack", url="env:BAD"),
    ]
    plan = plan_telling(*targets)
    save_plan(plan, folder.plan)

    tell_end(folder, plan, make_status(), GOOD=f"{good.url}/path-token?q=1", BAD=f"{bad.url}/other-token")

    assert good.calls[0].path == "/path-token?q=1"
    written = b"".join(path.read_bytes() for path in folder.root.rglob("*") if path.is_file()).decode()
    assert "notification_given_up" in written and "notification_sent" in written
    assert [each for each in (SECRET, "path-token", "other-token") if each in written] == []


def test_a_github_target_outside_of_github_is_nobody(folder: RunFolder) -> None:
    tell_end(folder, plan_telling(NotifyTarget(type="github")), make_status())

    assert read_all(folder) == []
    assert not (folder.root / "notifications.jsonl").exists()


def test_what_a_killed_life_cycle_had_not_told_is_told_in_its_place_with_the_same_ids(
    folder: RunFolder, serve: MakeServer
) -> None:
    hanging, working = serve(HANG), serve()
    plan = plan_telling(NotifyTarget(type="webhook", url="env:URL"), hook(working))
    save_plan(plan, folder.plan)
    killed = Notifier(folder, plan, {"URL": hanging.url})
    killed.watch_budget(make_status("in_progress", "no", usd_so_far=5.0))
    wait_for(lambda: len(hanging.calls) + len(working.calls) >= 2 and len(read_all(folder)) >= 1)

    mended = serve()
    killed._turn.close()  # as the kernel does for a process that is killed
    tell_end_in_place(folder, {"URL": mended.url}, make_status("cancelled"))

    assert mended.events() == ["budget", "cancelled", "released"]
    assert working.events() == ["budget", "cancelled", "released"]
    assert mended.calls[0].data["id"] == hanging.calls[0].data["id"]


def test_what_was_told_is_not_told_twice_by_whoever_comes_later(folder: RunFolder, serve: MakeServer) -> None:
    server = serve()
    plan = plan_telling(hook(server))
    save_plan(plan, folder.plan)
    tell_end(folder, plan, make_status(released="unverified"))

    tell_end_in_place(folder, {}, make_status())

    assert server.events() == ["finished", "release_unverified", "released"]


def test_a_torn_line_of_the_outbox_is_none(folder: RunFolder) -> None:
    outbox = Outbox(folder.root / "notifications.jsonl")
    told = make_notification(plan_telling(), make_status(), "finished", "now")
    outbox.put(told, ["a", "b"])
    outbox.close(told.id, "b", is_delivered=True)
    with (folder.root / "notifications.jsonl").open("ab") as file:
        file.write(b'{"told": {"id": "x", "rec')

    assert outbox.read() == {told.id: Letter(notification=told, waiting=("a",))}


def test_a_folder_that_cannot_be_written_ends_no_run(
    folder: RunFolder, serve: MakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.root / "notifications.jsonl").mkdir()

    tell_end(folder, plan_telling(hook(serve())), make_status())

    assert "notification_impossible" in {event for event, _ in read_all(folder)}
    assert "Traceback" in capsys.readouterr().err


def test_a_line_of_the_outbox_that_was_torn_within_a_letter_hides_no_other(folder: RunFolder) -> None:
    path = folder.root / "notifications.jsonl"
    outbox = Outbox(path)
    first, second, third = (
        make_notification(plan_telling(), make_status(message="fünf"), event, "now")
        for event in ("finished", "released", "failed")
    )
    outbox.put(first, ())
    outbox.put(second, ())
    # The second line ends within its ü, and the next one goes on behind it.
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex("ü".encode()) + 1])
    outbox.put(third, ())
    outbox.put(third, ())

    assert [letter.notification for letter in outbox.read().values()] == [first, third]
