"""A run's folder becomes a record: machines in time, speed, durations, errors, what was expected; and what is not known."""

from __future__ import annotations

import itertools
import json
import shutil
import time
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from runtime.objects.output_prefix import InputObject
from schemas.durations import find_step
from schemas.errors import NoCapacity
from schemas.failure import record_failure
from schemas.version import LeaseholdVersion
from stacks.planning.plan import TakenOver, load_plan
from stacks.report.data import RunReport, make_report
from stacks.report.durations import Steps
from stacks.report.errors import EXAMPLES, read_errors
from stacks.report.series import Series, read_series
from stacks.run_folder import RunFolder
from tests.stacks.report.report_runs import (
    add_machine,
    count,
    count_durations,
    end_run,
    fail,
    forget_lease,
    make_lost_run,
    make_run,
    refuse,
    write_errors,
    write_stats,
)
from tests.stacks.run_files import START, make_progress, write_progress

NOW = START + 2000


def read(folder: RunFolder) -> RunReport:
    return make_report(folder, now=NOW)


def read_stats(path: Path, *, started_at: float | None = None) -> tuple[Series, Steps]:
    found = read_series(path, find_machine=lambda index, _: index, started_at=started_at)
    assert found is not None
    return found


# Machines


def test_a_machine_is_boot_work_and_idle_from_its_create_until_it_was_gone(tmp_path: Path) -> None:
    bar = read(make_lost_run(tmp_path)).bars[0]

    assert [(each.kind, each.start - START, each.end - START) for each in bar.segments] == [
        ("boot", 0, 120),
        ("work", 120, 1200),
        ("idle", 1200, 1300),
    ]
    assert bar.usd == pytest.approx(3.0 * 1300 / 3600)
    assert (bar.label, bar.end, bar.offer) == ("0", "gone", "runpod H100 secure US-1")


def test_a_machine_that_died_is_lost_from_its_death_until_it_was_gone(tmp_path: Path) -> None:
    bars = read(make_lost_run(tmp_path)).bars

    assert [bar.label for bar in bars] == ["0", "1", "1 (2nd)"]
    assert [(each.kind, each.start - START, each.end - START) for each in bars[1].segments] == [
        ("boot", 0, 180),
        ("work", 180, 600),
        ("lost", 600, 660),
    ]
    assert bars[1].death == "its cloud does not know it any more"
    assert bars[2].death == ""


def test_a_machine_that_never_joined_has_only_booted(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    add_machine(folder, "m0", "created", "deleted", at=START)

    [bar] = read(folder).bars

    assert [(each.kind, each.seconds) for each in bar.segments] == [("boot", 60)]
    assert not bar.joined


def test_a_machine_that_nobody_saw_go_is_not_gone(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    add_machine(folder, "m0", "created", "unconfirmed", at=START)
    add_machine(folder, "m1", "created", index=1, at=START, joined_at=START + 60)

    bars = read(folder).bars

    assert [bar.end for bar in bars] == ["unconfirmed", "there"]
    assert bars[1].segments[-1].end == NOW


def test_creates_without_a_machine_and_failed_steps_are_troubles_counted_together(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    for index in range(3):
        add_machine(folder, "", "no_capacity", index=index)
    record_failure(folder.failures, step="machine", index=0, attempt=1, error=NoCapacity("no offer is left"))

    troubles = {each.what: each for each in read(folder).troubles}

    assert troubles["create of runpod/NVIDIA H100 80GB HBM3/1/secure/US-1: no capacity"].count == 3
    assert troubles["machine: NoCapacity"].detail == "no offer is left"


# Speed and durations


def test_rates_are_what_was_done_between_two_lines(tmp_path: Path) -> None:
    series = read(make_lost_run(tmp_path)).series

    assert series is not None
    assert [edge - START for edge in series.edges] == [120, 400, 500, 600, 700, 800, 900]
    rates = {each.key: each.requests_per_s for each in series.machines}
    assert rates[0] == (0.0357, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert series.machines[0].output_tokens_per_s[1] == 1.0


def test_what_a_replacement_did_is_not_counted_for_the_machine_before_it(tmp_path: Path) -> None:
    report = read(make_lost_run(tmp_path))

    assert report.series is not None
    rates = {report.labels[each.key]: each.requests_per_s for each in report.series.machines}
    assert rates["1"][-1] is None
    assert rates["1 (2nd)"] == (None, None, None, None, 0.05, 0.05)


def test_a_dispatcher_that_began_anew_counts_from_nothing(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    write_stats(folder, [(START + 10, [(0, 100, 0)]), (START + 20, [(0, 150, 0)]), (START + 30, [(0, 30, 0)])])

    series, noted = read_stats(folder.root / "stats.jsonl", started_at=START)

    assert series.machines[0].requests_per_s == (10.0, 5.0, 3.0)
    assert sum(noted.values()) == pytest.approx(180)


def test_a_last_moment_is_part_of_what_came_before_it(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    write_stats(folder, [(START + 10, [(0, 100, 0)]), (START + 10.01, [(0, 101, 0)])])

    series, _ = read_stats(folder.root / "stats.jsonl", started_at=START)

    assert series.machines[0].requests_per_s == (10.1,)


def test_without_a_histogram_durations_have_the_percentiles_that_the_dispatcher_noted(tmp_path: Path) -> None:
    report = read(make_lost_run(tmp_path))

    assert report.timing is not None
    assert not report.timing.is_counted
    assert report.timing.overall.p50_s == pytest.approx(0.2, rel=0.1)
    assert report.timing.overall.p90_s == pytest.approx(0.4, rel=0.1)
    assert report.timing.overall.p99_s == pytest.approx(0.8, rel=0.1)
    assert report.timing.answers == 90
    assert sum(bar.count for bar in report.timing.bars) == pytest.approx(90, rel=0.01)
    assert report.series is not None
    assert report.series.durations[0] == report.timing.overall


def test_durations_are_those_that_the_dispatcher_counted(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    count_durations(folder, [0.11] * 60 + [0.5] * 30 + [4.0] * 7)

    timing = read(folder).timing

    assert timing is not None
    assert (timing.is_counted, timing.answers, timing.untimed, timing.longest_s) == (True, 97, 0, 4.0)
    assert timing.overall.p50_s == pytest.approx(0.11, rel=0.033)
    assert timing.overall.p90_s == pytest.approx(0.5, rel=0.033)
    assert timing.overall.p99_s == 4.0, "no percentile lies behind the slowest answer"
    assert [each.count for each in timing.bars if each.count] == [60, 30, 7]
    assert all(before.high_s == after.low_s for before, after in itertools.pairwise(timing.bars))


def test_answers_without_a_duration_are_told_and_those_of_an_earlier_run_are_not_missed(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    count_durations(folder, [0.1] * 50)
    assert (timing := read(folder).timing) is not None
    assert timing.untimed == 47

    taken = TakenOver(mode="resume", answers=40, failures=0)
    plan = msgspec.structs.replace(load_plan(folder.plan), taken_over=taken)
    folder.plan.write_bytes(msgspec.json.encode(plan))

    assert (timing := read(folder).timing) is not None
    assert timing.untimed == 7


def test_a_dispatcher_that_has_just_begun_again_lets_no_answer_seem_to_be_made_twice(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    write_progress(folder, make_progress("waiting", total=0, completed=0, failed=0, durations=count([0.1] * 50)))

    assert (timing := read(folder).timing) is not None
    assert (timing.answers, timing.untimed) == (50, 0)


def test_over_time_durations_are_counted_where_the_dispatcher_counts_and_noted_before(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    noted = {"index": 0, "completed": 10, "p50_s": 0.2, "p90_s": 0.2, "p99_s": 0.2}
    counted = {"index": 0, "completed": 110, "p50_s": 0.2, "p90_s": 0.2, "p99_s": 0.2}
    lines = [
        {"time": START + 5, "replicas": [noted]},
        {"time": START + 10, "replicas": [counted], "durations": [[find_step(1.0), 98], [find_step(9.0), 2]]},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    series, steps = read_stats(path, started_at=START)

    first, second = series.durations
    assert first is not None and second is not None
    assert first.p99_s == pytest.approx(0.2, rel=0.04)
    assert (second.p50_s, second.p99_s) == (pytest.approx(1.0, rel=0.04), pytest.approx(9.0, rel=0.04))
    assert sum(steps.values()) == pytest.approx(110)


def test_slow_and_fast_machines_are_mixed_by_how_much_they_answered(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    fast = {"index": 0, "completed": 900, "p50_s": 0.1, "p90_s": 0.1, "p99_s": 0.1}
    slow = {"index": 1, "completed": 100, "p50_s": 10.0, "p90_s": 10.0, "p99_s": 10.0}
    path.write_text(json.dumps({"time": START, "replicas": [fast, slow]}) + "\n")

    series, _ = read_stats(path)

    [percentiles] = series.durations
    assert percentiles is not None
    assert percentiles.p50_s == pytest.approx(0.1, rel=0.1)
    assert percentiles.p99_s == pytest.approx(10.0, rel=0.1)


def test_many_lines_become_few_points_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "stats.jsonl"
    with path.open("w") as file:
        for n in range(1, 3001):
            told = [
                {"index": index, "completed": n * (index + 1), "p50_s": 0.2, "p90_s": 0.3, "p99_s": 0.4}
                for index in (0, 1)
            ]
            file.write(json.dumps({"time": START + 5 * n, "replicas": told}) + "\n")

    series, noted = read_stats(path, started_at=START)

    assert 100 <= len(series.edges) - 1 <= 240
    lengths = [later - earlier for earlier, later in zip(series.edges, series.edges[1:], strict=False)]
    done = [
        sum((rate or 0) * length for rate, length in zip(each.requests_per_s, lengths, strict=True))
        for each in series.machines
    ]
    assert done == pytest.approx([3000, 6000], rel=0.01)
    assert max(lengths) <= 2 * min(lengths[:-1]), "a page shows the beginning as finely as the end"
    assert sum(noted.values()) == pytest.approx(9000)


def test_a_torn_line_of_stats_is_left_out_and_told(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    with (folder.root / "stats.jsonl").open("ab") as file:
        file.write(b'{"time": 17900')

    report = read(folder)

    assert report.series is not None
    assert len(report.series.edges) == 7
    assert "1 line(s) of stats.jsonl cannot be read." in report.gaps


# Errors


def test_errors_are_grouped_by_what_they_say_without_its_figures(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    lines = [refuse(n, f"request ({n} tokens) is too long") for n in range(20)]
    lines += [refuse(n, "overloaded", status=500) for n in range(20, 25)]
    lines += [fail(n, "max_retries", "gave up") for n in range(25, 27)]
    write_errors(folder, lines)

    errors = read_errors(folder)

    assert errors is not None
    assert [(each.kind, each.count) for each in errors.groups] == [
        ("HTTP 400", 20),
        ("HTTP 500", 5),
        ("max_retries", 2),
    ]
    assert [each.custom_id for each in errors.groups[0].examples] == ["id-0", "id-1", "id-2"]
    assert errors.groups[0].examples[1].message == "request (1 tokens) is too long"
    assert len(errors.groups[0].examples) == EXAMPLES


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"message": "no", "object": "error"}, "no"),
        ({"detail": "no"}, "no"),
        ("no", "no"),
        ({"strange": 1}, '{"strange": 1}'),
        ([1], "[1]"),
        (None, "null"),
    ],
)
def test_the_sentence_is_found_wherever_engines_place_it(tmp_path: Path, body: object, message: str) -> None:
    folder, _ = make_run(tmp_path)
    line = refuse(0, "")
    line["response"]["body"] = body
    write_errors(folder, [line])

    errors = read_errors(folder)

    assert errors is not None
    assert errors.groups[0].examples[0].message == message


def test_lines_that_were_stopped_before_their_turn_are_not_failures(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    write_errors(folder, [*(fail(n, "batch_cancelled") for n in range(6)), refuse(7, "no")])
    write_progress(folder, make_progress("stopped", total=10, completed=3, failed=7))
    end_run(folder, total=10, completed=3, failed=7, state="cancelled")

    outcome = read(folder).outcome

    assert (outcome.completed, outcome.failed, outcome.not_run, outcome.open) == (3, 1, 6, 0)


def test_the_errors_of_a_live_run_come_from_the_part(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    write_errors(folder, [refuse(0, "no")], name="error.jsonl.part")

    report = read(folder)

    assert report.errors is not None
    assert report.errors.lines == 1


def test_half_a_surrogate_pair_and_a_torn_line_do_not_stop_the_reading(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    odd = json.dumps(refuse(0, "bad \ud800 text", custom_id="odd \udfff"))
    folder.errors.write_text(f"{odd}\n{json.dumps(refuse(1, 'no'))}\n" + '{"id":"batch_re')

    errors = read_errors(folder)

    assert errors is not None
    assert (errors.lines, errors.unreadable) == (3, 1)
    assert {each.examples[0].message for each in errors.groups} == {"bad ? text", "no"}


def test_many_different_messages_end_in_one_group_of_others(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    names = [f"{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300)]
    write_errors(folder, [refuse(n, f"unknown word {name}") for n, name in enumerate(names)])

    errors = read_errors(folder)

    assert errors is not None
    assert len(errors.groups) == 201
    assert sum(each.count for each in errors.groups) == 300
    assert errors.groups[0].count == 100


def test_a_long_file_of_errors_is_read_in_little_memory(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    line = json.dumps(refuse(0, "the prompt of 123 tokens is too long")) + "\n"
    folder.errors.write_text(line * 20_000)

    tracemalloc.start()
    began = time.process_time()
    errors = read_errors(folder)
    spent_s = time.process_time() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert errors is not None
    assert errors.groups[0].count == 20_000
    assert peak < 1_000_000
    assert spent_s < 5


# Expected and actual


def test_what_was_expected_stands_beside_what_came(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    report = read(folder)

    rows = {each.name: each for each in report.estimate}
    assert rows["Cost"].actual == report.outcome.usd == pytest.approx(3.0 * (1300 + 660 + 600) / 3600)
    assert rows["Time with machines"].actual == pytest.approx(1300 / 3600)
    assert rows["Prompt tokens"].actual == 9_000
    assert rows["Work tokens/s a machine"].actual == pytest.approx((5_000 + 0.08 * 9_000) / (1080 + 420 + 400))
    assert rows["Boot of a machine"].actual == pytest.approx((120 + 180 + 100) / 3 / 60)
    expected = rows["Cost"].expected.likely
    assert rows["Cost"].error == pytest.approx((report.outcome.usd or 0) / expected - 1)


# What was run


def test_of_an_input_from_s3_the_copy_that_was_run_has_the_hash(tmp_path: Path) -> None:
    folder, plan = make_run(tmp_path, input="s3://bucket/in.jsonl")
    staged = InputObject(address="s3://bucket/in.jsonl", size=6, etag="e")
    folder.plan.write_bytes(msgspec.json.encode(msgspec.structs.replace(plan, staged=staged)))
    folder.input.write_text("hello\n")
    header = {"size": 6, "modified_ns": folder.input.stat().st_mtime_ns, "lines": 1}
    (folder.root / "input.index").write_bytes(json.dumps(header).encode().ljust(4096))

    facts = {fact.name: fact.value for group in read(folder).facts for fact in group.facts}

    assert facts["File"] == "s3://bucket/in.jsonl"
    assert facts["SHA-256"] == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def test_the_input_has_its_hash_only_while_it_is_what_was_read(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("hello\n")
    folder, _ = make_run(tmp_path, input=str(source))
    header = {"size": 6, "modified_ns": source.stat().st_mtime_ns, "lines": 1}
    (folder.root / "input.index").write_bytes(json.dumps(header).encode().ljust(4096) + b"\x00" * 24)
    digest = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"

    before = read(folder)
    source.write_text("other\n\n")
    after = read(folder)

    assert digest in {fact.value for group in before.facts for fact in group.facts}
    assert digest not in {fact.value for group in after.facts for fact in group.facts}
    assert "The input's hash: the file has been written to since the run read it." in after.gaps


def test_model_engine_limits_and_versions_are_told(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)

    facts = {fact.name: fact.value for group in read(folder).facts for fact in group.facts}

    assert facts["Model"] == "builtin:tiny-chat"
    assert facts["Revision"] == "not pinned"
    assert facts["Money"] == "25.00 USD"
    assert facts["Machines"] == "2, at least 1 to go on"
    assert len(facts["SHA-256 of plan.json"]) == 64
    assert facts["Leasehold"] == "not noted in this plan"


def test_the_leasehold_that_decided_is_told_not_the_one_that_makes_the_report(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    version = LeaseholdVersion(version="0.0.7", commit="c0ffee" * 6, is_changed=True)
    plan = msgspec.structs.replace(load_plan(folder.plan), leasehold=version)
    folder.plan.write_bytes(msgspec.json.encode(plan))

    report = read(folder)

    facts = {fact.name: fact.value for group in report.facts for fact in group.facts}
    assert facts["Leasehold"] == "0.0.7 (commit c0ffeec0ffee, with changes)"
    assert report.leasehold.version != "0.0.7"


def test_offers_are_told_in_their_order_with_what_was_made_of_them(tmp_path: Path) -> None:
    [offer] = read(make_lost_run(tmp_path)).offers

    assert (offer.rank, offer.cloud, offer.gpu, offer.region, offer.usd_per_hour, offer.machines) == (
        1,
        "runpod",
        "H100",
        "US-1",
        3.0,
        3,
    )


# Runs in every state, and folders with holes


def test_a_live_run_counts_until_now(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    add_machine(folder, "m0", "created", at=START, joined_at=START + 100)
    write_progress(folder, make_progress("running", total=100, completed=40, failed=1, first_sent_at=START + 100))
    end_run(
        folder, total=100, completed=40, failed=1, state="in_progress", released="no", ended_at=None, exit_code=None
    )

    outcome = read(folder).outcome

    assert (outcome.state, outcome.released, outcome.is_over) == ("in_progress", "no", False)
    assert (outcome.open, outcome.not_run) == (59, 0)
    assert outcome.usd == pytest.approx(3.0 * 2000 / 3600)
    assert outcome.duration_s == 2000


def test_a_run_that_failed_before_any_machine_has_run_nothing(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    end_run(folder, total=100, completed=0, failed=0, state="resource_failed", exit_code=11)

    report = read(folder)

    assert report.bars == ()
    assert (report.outcome.not_run, report.outcome.exit_code) == (100, 11)


def test_an_empty_folder_gives_a_report_that_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "nothing")
    folder.root.mkdir()

    report = read(folder)

    assert (report.outcome.state, report.outcome.completed, report.outcome.usd) == ("unknown", None, None)
    assert report.facts == report.offers == report.estimate == report.bars == ()
    assert any("this run has no plan" in gap for gap in report.gaps)


FILES = (
    "plan.json",
    "status.json",
    "progress.json",
    "receipt.json",
    "lease.json",
    "intents.jsonl",
    "events.jsonl",
    "stats.jsonl",
    "error.jsonl",
    "failures.jsonl",
    "input.index",
    "lifecycle.json",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_lost_run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content", [None, b"", b'{"version": 1, "run": ', b"\xff\xfe\x00 no JSON\n\n", b"[]\n", b"folder"]
)
def test_no_single_file_that_is_missing_or_torn_stops_the_report(
    whole: RunFolder, tmp_path: Path, name: str, content: bytes | None
) -> None:
    folder = RunFolder(shutil.copytree(whole.root, tmp_path / whole.run))
    path = folder.root / name
    path.unlink(missing_ok=True)
    if content == b"folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)

    report = read(folder)

    assert report.run == "tickets-1"
    assert report.outcome.completed == 97


def test_a_lost_status_is_told_from_what_the_dispatcher_said(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    folder.status.write_bytes(b"{")

    report = read(folder)

    assert (report.outcome.state, report.outcome.completed, report.outcome.failed) == ("completed", 97, 3)
    assert report.outcome.released == "no"
    assert any(gap.startswith("status.json cannot be read") for gap in report.gaps)


def test_a_lost_lease_does_not_make_machines_gone(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    add_machine(folder, "m0", "created", at=START)
    forget_lease(folder)

    report = read(folder)

    assert report.bars[0].end == "there"
    assert report.outcome.released == "no"
