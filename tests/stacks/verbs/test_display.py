"""What a person sees, as text: the live view, the summary, plan, runs and receipt."""

from __future__ import annotations

import io
import re
from typing import Any

import msgspec
import pytest
from rich.console import Console, RenderableType

from schemas.job import Candidate, Limits
from schemas.status import MachineStatus, ReplicaProgress, RequestCounts, Status, Usage
from stacks.planning.plan_view import render_plan
from stacks.planning.span import Span
from stacks.policy.policy import PolicyResult
from stacks.runs.receipt import Comparison, EstimateCheck, MachineReceipt, Receipt
from stacks.runs.receipt_view import render_receipt
from stacks.terminal.duration_words import format_duration
from stacks.verbs.display import render_live, render_runs, render_summary
from tests.stacks.run_files import make_h100, make_job, make_progress, plan_for

WIDTH = 100


def make_check() -> EstimateCheck:
    return EstimateCheck(
        usd=Comparison(expected=Span(low=0.1, likely=0.4, high=1.2), actual=0.5, error=0.25),
        hours=Comparison(expected=Span(low=0.1, likely=0.5, high=1.0), actual=0.25, error=-0.5),
        prompt_tokens=Comparison(expected=Span(low=100, likely=200, high=400), actual=200, error=0.0),
        output_tokens=Comparison(expected=Span(low=0, likely=0, high=0), actual=0),
    )


def make_text(rendered: RenderableType, *, styles: bool = False, width: int = WIDTH) -> str:
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, markup=False, color_system="256"
    )
    console.print(rendered)
    return console.export_text(styles=styles)


def make_machine(index: int = 0, state: Any = "joined", **fields: Any) -> MachineStatus:
    values = {"cloud": "runpod", "id": f"p{index}", "name": f"lh-{index}", "usd_per_hour": 2.5}
    return MachineStatus(index=index, state=state, **(values | fields))


def make_status(**fields: Any) -> Status:
    values: dict[str, Any] = {"run": "tickets-1", "job": "tickets", "state": "in_progress"}
    return Status(**(values | fields))


def make_receipt(**fields: Any) -> Receipt:
    line = MachineReceipt(
        index=0, cloud="runpod", id="p0", name="lh-0", offer="runpod/H100/1", gpu="H100-SXM", count=2,
        region="US-KS-2", seconds=600, boot_s=60, work_s=500,
        idle_s=40, usd_per_hour=2.5, usd=0.4167, billed_usd=0.42, proven_gone=True,
    )  # fmt: skip
    values: dict[str, Any] = {
        "run": "tickets-1",
        "job": "tickets",
        "usd": 0.4167,
        "estimated_usd": (0.1, 0.4, 1.2),
        "requests_completed": 10,
        "requests_failed": 0,
        "usage": Usage(),
        "machines": (line,),
        "released": True,
    }
    return Receipt(**(values | fields))


def test_the_live_view_shows_run_state_money_requests_and_machines() -> None:
    status = make_status(
        request_counts=RequestCounts(total=2000),
        usd_so_far=1.234,
        machines=(make_machine(), make_machine(1, "booting")),
    )
    replica = ReplicaProgress(index=0, state="ready", in_flight=64, completed=1500)
    progress = make_progress(
        total=2000, completed=1500, failed=3, requests_per_s=12.4, output_tokens_per_s=2345.6, eta_s=40.2,
        replicas=(replica,),
    )  # fmt: skip

    lines = make_text(render_live(status, progress, 3)).splitlines()

    assert lines[0].split() == ["⠸", "tickets-1", "in_progress", "1.23", "USD", "so", "far"]
    assert "1,503 of 2,000  3 failed  12 requests/s  2,346 tokens/s  40 s left" in " ".join(lines)
    assert lines[2].split() == [
        "machine",
        "0",
        "runpod",
        "joined",
        "2.50",
        "USD/h",
        "64",
        "in",
        "flight,",
        "1,500",
        "done",
    ]
    assert lines[3].split() == ["machine", "1", "runpod", "booting", "2.50", "USD/h"]
    assert all(len(line) <= WIDTH for line in lines)


def test_the_live_view_works_before_there_is_anything_to_show() -> None:
    assert len(make_text(render_live(make_status(state="queued"), None, 0)).splitlines()) == 1


def test_the_live_view_of_many_machines_stays_short() -> None:
    status = make_status(machines=tuple(make_machine(index) for index in range(40)))

    lines = make_text(render_live(status, None, 0)).splitlines()

    assert len(lines) == 18
    assert "and 24 more" in lines[-1]


def test_the_summary_names_state_results_cost_and_proof() -> None:
    status = make_status(
        state="completed", message="10 of 10 requests answered", output_file="/r/output.jsonl", released="verified",
        started_at="2026-11-24T10:00:00.000Z", ended_at="2026-11-24T10:03:20.000Z",
    )  # fmt: skip

    lines = make_text(render_summary(status, make_receipt())).splitlines()

    assert lines[:5] == [
        "completed  10 of 10 requests answered",
        "  answers   /r/output.jsonl",
        "  cost      0.42 USD (expected 0.10 to 1.20, likely 0.40)",
        "  took      3 min",
        "  released  verified: no machine of this run is left",
    ]


def test_an_unverified_release_is_the_last_line_with_id_price_and_command() -> None:
    machines = (make_machine(0, "gone"), make_machine(1, "unconfirmed", usd_per_hour=3.29))
    status = make_status(state="expired", message="used up\nlong reason", released="unverified", machines=machines)

    text = make_text(render_summary(status, None))
    last = " ".join(text.strip().split("\n\n")[-1].split())

    assert last == (
        "RELEASE NOT VERIFIED: 1 machine may still cost money: runpod p1 at 3.29 USD/h. "
        "Run now: ./inv release tickets-1 (or by hand: https://console.runpod.io/pods )"
    )
    assert "\x1b[1;31mRELEASE NOT VERIFIED" in make_text(render_summary(status, None), styles=True)


def test_an_unverified_release_without_known_machines_still_warns() -> None:
    text = make_text(render_summary(make_status(state="failed", released="unverified"), None))

    assert "machines may be left that cost money. Run now: ./inv release tickets-1" in " ".join(text.split())


def test_the_plan_shows_what_is_tried_what_it_costs_and_its_limits() -> None:
    job = make_job(
        candidates=[Candidate(cloud="runpod")], limits=Limits(max_usd=25, max_hours=6, boot_minutes=15), replicas=2
    )
    plan = plan_for(job, make_h100("US-1", 2.39, stock="High"), make_h100("EU-1", 9, count=8, available=False))

    text = make_text(render_plan(plan))

    assert text.splitlines()[0].startswith("tickets  100 requests to /v1/chat/completions, model ")
    assert "2 machines, at least 1 to go on" in text
    rows = [line.split() for line in text.splitlines() if "runpod" in line]
    assert rows == [
        ["1", "runpod", "H100", "secure", "US-1", "2.39", "high"],
        ["2", "runpod", "8", "x", "H100", "secure", "EU-1", "9.00", "sold", "out"],
    ]
    estimate = plan.estimate
    assert " ".join(text.split()).count("low likely high") == 1
    cost = next(line for line in text.splitlines() if line.split()[:1] == ["cost"])
    usd = (estimate.low_usd, estimate.likely_usd, estimate.high_usd)
    assert cost.split() == ["cost", *(f"{each:.2f}" for each in usd), "USD"]
    for assumption in estimate.assumptions:
        assert assumption.partition(": ")[2].split(";")[0] in " ".join(text.split())
    assert "25.00 USD, 6 h 00, 15 minutes to boot" in text


def test_a_plan_without_a_limit_says_so() -> None:
    assert "no limit in USD" in make_text(render_plan(plan_for(make_job())))


def test_the_table_of_runs_has_a_line_for_each() -> None:
    first = make_status(
        state="completed", released="verified", request_counts=RequestCounts(total=2000, completed=1990, failed=10),
        usd_so_far=3.456, started_at="2026-11-24T10:00:00.000Z",
    )  # fmt: skip
    second = make_status(run="demo-2", state="queued")

    lines = make_text(render_runs([first, second])).splitlines()

    assert lines[0].split() == ["run", "state", "released", "requests", "failed", "USD", "started"]
    assert lines[1].split() == [
        "tickets-1",
        "completed",
        "verified",
        "1,990/2,000",
        "10",
        "3.46",
        "2026-11-24",
        "10:00",
    ]
    assert lines[2].split() == ["demo-2", "queued", "no", "0/0", "0", "0.00"]


@pytest.mark.parametrize("width", [60, 160])
def test_lines_that_never_had_their_turn_are_not_called_failed(width: int) -> None:
    counts = RequestCounts(total=4000, completed=1000, failed=3000)
    stopped = make_status(state="cancelled", request_counts=counts)
    other = make_status(run="demo-2", request_counts=RequestCounts(total=5, completed=4, failed=1))

    words = " ".join(make_text(render_runs([stopped, other], {"tickets-1": 2995}), width=width).split())

    if width == 60:
        assert "1,000/4,000 requests, 5 failed, 2,995 not run, 0.00 USD" in words
        assert "4/5 requests, 1 failed, 0.00 USD" in words
    else:
        assert "requests failed not run USD" in words
        assert "1,000/4,000 5 2,995 0.00" in words
        assert "4/5 1 0.00" in words


def test_while_a_stopped_batch_is_given_back_only_answers_count_as_done() -> None:
    counts = RequestCounts(total=4000, completed=1000, failed=3000)
    progress = make_progress(state="stopped", stop_reason="batch_cancelled", request_counts=counts)

    words = make_text(render_live(make_status(state="finalizing", request_counts=counts), progress, 0))

    assert "1,000 of 4,000" in words
    assert "failed" not in words


def test_the_receipt_has_a_line_for_each_machine_and_a_total() -> None:
    unproven = msgspec.structs.replace(make_receipt().machines[0], index=1, proven_gone=False, billed_usd=None)
    receipt = make_receipt(machines=(*make_receipt().machines, unproven), billed_usd=0.42, usd_per_million_tokens=1.5)

    words = " ".join(make_text(render_receipt(receipt), width=160).split())

    assert "machine cloud GPU region id there boot work idle USD/h USD billed gone" in words
    assert "0 runpod 2 x H100-SXM US-KS-2 p0 10 min 60 s 8 min 40 s 2.50 0.4167 0.4200 proven" in words
    assert "0.4167 - NOT PROVEN" in words
    assert words.endswith(
        "total 0.42 USD (expected 0.10 to 1.20, likely 0.40), billed 0.42 USD, 1.50 USD per million tokens"
    )


@pytest.mark.parametrize("width", [60, 80])
def test_in_a_narrow_terminal_nothing_is_squeezed_or_cut(width: int) -> None:
    run = "nightly-tickets-of-all-regions-261124-abc123"
    receipt = make_receipt(billed_usd=0.42, check=make_check(), boot_s=60, work_s=500, idle_s=40)
    candidate = Candidate(cloud="runpod", max_usd_per_hour=3.0)
    plan = plan_for(make_job(candidates=[candidate]), make_h100("EUR-IS-1", 2.39), make_h100("US-KS-2", 3.01))

    runs = make_text(render_runs([make_status(run=run, started_at="2026-11-24T10:00:00.000Z")]), width=width)
    shown = make_text(render_receipt(receipt), width=width)
    planned = make_text(render_plan(plan), width=width)

    assert all(len(line.rstrip()) <= width for text in (runs, shown, planned) for line in text.splitlines())
    assert runs.splitlines()[0].rstrip() == run
    assert "in_progress, released: no  2026-11-24 10:00" in runs
    for words in ("machine 0  runpod 2 x H100-SXM, US-KS-2", "id p0", "billed 0.4200 USD", "gone: proven", "+25%"):
        assert words in shown
    assert "1 runpod H100 secure EUR-IS-1 2.39 -" in " ".join(planned.split())
    assert "left out of candidate 1 1 offer by max_usd_per_hour 3.00, from 3.01 USD/h" in " ".join(planned.split())


def test_the_receipt_shows_how_time_went_and_how_far_off_the_estimate_was() -> None:
    receipt = make_receipt(check=make_check(), boot_s=60, work_s=500, idle_s=40)

    words = " ".join(make_text(render_receipt(receipt), width=160).split())

    assert "time boot 60 s (10%), work 8 min (83%), idle 40 s (7%)" in words
    assert "USD 0.10 / 0.40 / 1.20 0.50 +25%" in words
    assert "time 6 min / 30 min / 60 min 15 min -50%" in words
    assert "prompt tokens 100 / 200 / 400 200 +0%" in words
    assert "answer tokens 0 / 0 / 0 0 -" in words


def test_requests_that_were_stopped_before_their_turn_are_not_called_failed() -> None:
    status = make_status(state="cancelled", message="stopped by the user", error_file="/r/error.jsonl")
    receipt = make_receipt(requests_completed=4, requests_failed=1, requests_not_run=5)

    text = make_text(render_summary(status, receipt))

    assert "  the rest  /r/error.jsonl" in text
    assert "  requests  4 answered, 1 failed, 5 not run" in text


@pytest.mark.parametrize(
    ("failed", "not_run", "released", "command"),
    [
        (0, 5, "verified", "resume"),
        (2, 5, "verified", "resume"),
        (2, 0, "verified", "retry"),
        (0, 0, "verified", ""),
        (2, 5, "unverified", ""),
    ],
)
def test_the_summary_names_the_command_that_does_what_is_left(
    failed: int, not_run: int, released: Any, command: str
) -> None:
    status = make_status(state="cancelled", released=released)

    text = make_text(render_summary(status, make_receipt(requests_failed=failed, requests_not_run=not_run)))

    assert [line for line in text.splitlines() if line.startswith("  next ")] == (
        [f"  next      ./inv {command} tickets-1"] if command else []
    )


def test_before_a_dispatcher_has_counted_its_lines_the_view_keeps_the_runs_own_count() -> None:
    status = make_status(request_counts=RequestCounts(total=2000))

    text = make_text(render_live(status, make_progress(total=0, completed=0, failed=0), 0))

    assert "0 of 2,000" in text


def test_brackets_in_a_clouds_words_are_shown_as_they_are() -> None:
    status = make_status(state="failed", message="invalid [/v2/pods] [red]", machines=(make_machine(id="[x]"),))
    plan = plan_for(make_job(candidates=[Candidate(cloud="runpod")]), make_h100("[bold]"))

    assert "invalid [/v2/pods] [red]" in make_text(render_summary(status, None))
    assert "[bold]" in make_text(render_plan(plan))


@pytest.mark.parametrize("width", [60, 80])
def test_paths_and_commands_stay_on_one_line_in_a_narrow_terminal(width: int) -> None:
    folder = "/home/someone/projects/quarterly classification/runs/tickets-20260921-141320-ab12cd"
    status = make_status(
        state="failed",
        released="unverified",
        message="39,988 of 40,000 requests answered; the rest was stopped before its turn",
        output_file=f"{folder}/output.jsonl",
        error_file=f"{folder}/error.jsonl",
        machines=(make_machine(0, "unconfirmed", id="i-0123456789abcdef0123456789"),),
    )
    template = "/home/someone/projects/quarterly-classification/templates/qwen3-32b-speculative.yaml"
    plan = plan_for(make_job(template=template), make_h100(), run="tickets-2")
    policy = PolicyResult(file="/home/someone/projects/quarterly-classification/the/policy.yaml", rules=("clouds",))

    summary = show_whole(render_summary(status, make_receipt()), width)
    drawn = show_whole(render_plan(msgspec.structs.replace(plan, policy=policy)), width)

    whole = [status.output_file, status.error_file, "./inv release tickets-1", template, policy.file]
    assert [each for each in whole if each not in f"{summary}\n{drawn}"] == []
    assert [
        line
        for line in f"{summary}\n{drawn}".splitlines()
        if len(line) > width and not any(path in line for path in whole)
    ] == []
    for words, source in ((summary, status.message), (drawn, plan.estimate.assumptions[2].split(": ")[1])):
        assert source in " ".join(words.split()), "no word is broken"


@pytest.mark.parametrize("width", [56, 76])
def test_the_live_view_breaks_no_phrase_and_cuts_no_word(width: int) -> None:
    machines = (make_machine(0), make_machine(1, "unconfirmed"))
    replica = ReplicaProgress(index=0, state="ready", in_flight=512, completed=40_000)
    progress = make_progress(
        total=120_000, completed=40_000, failed=12, requests_per_s=312.0, output_tokens_per_s=41_234.0, eta_s=5000.0,
        replicas=(replica,),
    )  # fmt: skip
    status = make_status(machines=machines, request_counts=progress.request_counts, usd_so_far=12.3)

    lines = make_text(render_live(status, progress, 3), width=width).splitlines()

    assert max(len(line) for line in lines) <= width
    for phrase in ("12.30 USD so far", "40,012 of 120,000", "12 failed", "312 requests/s", "41,234 tokens/s",
                   "83 min left", "2.50 USD/h", "512 in flight, 40,000 done", "unconfirmed"):  # fmt: skip
        assert any(phrase in line for line in lines), phrase


def show_whole(rendered: RenderableType, width: int) -> str:
    """As print_view prints it."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, markup=False)
    console.print(rendered, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    status = make_status(state="failed", released="unverified", request_counts=RequestCounts(total=1))

    plan = plan_for(
        make_job(candidates=[Candidate(cloud="runpod", max_usd_per_hour=3)]), make_h100(), make_h100("B", 9)
    )
    receipt = make_receipt(check=make_check())

    assert "failed" in make_text(render_summary(status, None))
    for rendered in (render_summary(status, None), render_runs([status]), render_plan(plan), render_receipt(receipt)):
        file = io.StringIO()
        Console(file=file, force_terminal=True, width=WIDTH).print(rendered)
        codes = {code for codes in re.findall(r"\x1b\[([\d;]*)m", file.getvalue()) for code in codes.split(";")}
        assert codes <= {"0", "1", "2"}, "only bold and dim are no colours"
        assert len(file.getvalue()) > 50


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (8.4, "8 s"), (89, "89 s"), (90, "2 min"), (180, "3 min"), (5400, "1 h 30"), (3900 * 24, "26 h 00")],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
