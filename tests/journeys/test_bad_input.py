"""Users' mistakes: one message with where, what and what to do, exit code 2, no traceback, nothing started."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.wire, pytest.mark.timeout(300)]

GOOD = """version: 1
name: trial
input: trial.jsonl
endpoint: /v1/chat/completions
template: tiny-chat@1.0.0
machines: {replicas: 1, candidates: [{cloud: local}]}
limits: {max_hours: 1}
"""

BAD_JOBS = {
    "empty": ("", "empty"),
    "tabs": ("version: 1\n\tname: x\n", "tab"),
    "duplicate key": (GOOD + "name: again\n", "name"),
    "wrong type": (GOOD.replace("replicas: 1", "replicas: many"), "replicas"),
    "unknown key": (GOOD.replace("template:", "tmeplate:"), "template"),
    "name too long": (GOOD.replace("name: trial", "name: " + "a" * 60), "name"),
    "missing template": (GOOD.replace("tiny-chat@1.0.0", "nobody@1.0.0"), "nobody"),
    "no such cloud": (GOOD.replace("cloud: local", "cloud: lokal"), "local"),
    "not a mapping": ("- 1\n- 2\n", "mapping"),
}


@pytest.mark.parametrize("case", BAD_JOBS)
def test_a_bad_job_is_exit_2_with_its_place_and_starts_nothing(workshop: Workshop, case: str) -> None:
    text, word = BAD_JOBS[case]
    workshop.write_input(workshop.folder / "trial.jsonl", lines=2, max_tokens=4)
    job = workshop.folder / "bad.yaml"
    job.write_text(text)

    done = workshop.inv("run", str(job), "--run", "never")

    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert "bad.yaml" in done.stderr
    assert "Traceback" not in done.stderr
    assert not workshop.run_dir("never").exists()
    assert workshop.machines() == []


BAD_LINES = {
    "invalid_json_line": "{not json",
    "missing_custom_id": '{"method":"POST","url":"/v1/chat/completions","body":{"model":"tiny-chat"}}',
    "duplicate_custom_id": '{"custom_id":"id-0","method":"POST","url":"/v1/chat/completions","body":{"model":"tiny-chat"}}',
    "invalid_method": '{"custom_id":"a","method":"GET","url":"/v1/chat/completions","body":{"model":"tiny-chat"}}',
    "url_mismatch": '{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"tiny-chat"}}',
    "invalid_body": '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":"x"}',
    "model_mismatch": '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"gpt-5"}}',
    "stream_not_supported": (
        '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"tiny-chat","stream":true}}'
    ),
}


@pytest.mark.parametrize("code", BAD_LINES)
def test_a_bad_line_is_exit_2_with_its_number_and_code(workshop: Workshop, code: str) -> None:
    job = workshop.write_job(lines=2)
    with (workshop.folder / "trial.jsonl").open("a") as file:
        file.write(BAD_LINES[code] + "\n")

    done = workshop.inv("run", str(job), "--run", "never")

    assert done.returncode == 2, done.stderr
    assert code in done.stderr
    assert "trial.jsonl:3" in done.stderr
    assert not workshop.run_dir("never").exists()


def test_missing_and_unreadable_files_are_exit_2(workshop: Workshop) -> None:
    job = workshop.write_job()
    (workshop.folder / "trial.jsonl").unlink()
    cases = {
        "no job": workshop.folder / "nothing.yaml",
        "a folder": workshop.folder,
        "no input": job,
    }
    for path in cases.values():
        done = workshop.inv("run", str(path))
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.strip()


def test_an_empty_input_is_exit_2(workshop: Workshop) -> None:
    job = workshop.write_job()
    (workshop.folder / "trial.jsonl").write_text("\n\n")

    done = workshop.inv("validate", str(job))

    assert done.returncode == 2
    assert "empty_file" in done.stderr


@pytest.mark.parametrize(
    "typed", [["run"], ["rum", "x.yaml"], ["run", "x.yaml", "--no-such-flag"], ["status", "a", "b"]]
)
def test_wrong_arguments_are_exit_2_in_one_sentence(workshop: Workshop, typed: list[str]) -> None:
    done = workshop.inv(*typed)

    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in done.stderr


def test_commands_about_runs_that_do_not_exist_say_so(workshop: Workshop) -> None:
    for command in ("logs", "results", "receipt", "cancel", "release", "follow", "ssh"):
        done = workshop.inv(command, "nobody")
        assert done.returncode == 2, (command, done.stderr)
        assert "Traceback" not in done.stderr and done.stderr.strip()


@pytest.mark.parametrize("jobs", [1, 2])
def test_who_says_no_on_a_terminal_has_rented_nothing(workshop: Workshop, jobs: int) -> None:
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 2}]}
    files = [workshop.write_job(f"dear-{n}", machines=dear, limits={"max_usd": 5, "max_hours": 1}) for n in range(jobs)]

    code, said = workshop.answer("n", "run", *map(str, files))

    assert code == 5, said
    assert "Rent " in said
    assert "not started: you said no" in said
    assert not (workshop.home / "runs").exists()


def test_a_job_that_costs_money_needs_limits(workshop: Workshop) -> None:
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 2}]}
    job = workshop.write_job(machines=dear, limits={"max_hours": 1})

    done = workshop.inv("run", str(job), "--run", "asked")

    assert done.returncode == 2
    assert "`limits.max_usd` is missing" in done.stderr
    assert not workshop.run_dir("asked").exists()


def test_where_nobody_can_be_asked_the_jobs_own_limits_are_the_consent(workshop: Workshop) -> None:
    dear = {"replicas": 1, "candidates": [{"cloud": "local", "price_usd_per_hour": 2}]}
    job = workshop.write_job(lines=4, machines=dear, limits={"max_usd": 5, "max_hours": 1})

    done = workshop.inv("run", str(job))

    assert done.returncode == 0, done.stderr
    assert "nobody to ask: going on within 5.00 USD and 1 h" in done.stderr


@pytest.mark.parametrize("limit", ["0", "-3", "many"])
def test_a_limit_that_is_no_number_of_lines_runs_nothing(workshop: Workshop, limit: str) -> None:
    job = workshop.write_job()

    done = workshop.inv("run", str(job), "--run", "never", f"--limit={limit}")

    assert done.returncode == 2, done.stderr
    assert "--limit" in done.stderr
    assert not workshop.run_dir("never").exists()


def test_results_are_never_written_over_the_input(workshop: Workshop) -> None:
    job = workshop.write_job()
    data = workshop.folder / "data"
    data.mkdir()
    workshop.write_input(data / "output.jsonl", lines=3, max_tokens=4)
    before = (data / "output.jsonl").read_bytes()
    job.write_text(job.read_text().replace('"trial.jsonl"', '"data/output.jsonl", "output": "data"'))

    for command in (["validate"], ["plan"], ["run", "--yes"]):
        done = workshop.inv(*command, str(job))
        assert done.returncode == 2, done.stderr
        assert "over the input" in done.stderr
    assert (data / "output.jsonl").read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_rented(workshop: Workshop) -> None:
    (workshop.folder / "file").write_text("not a folder")
    job = workshop.write_job(output="file/below")

    done = workshop.inv("run", str(job), "--run", "never")

    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr


def test_a_home_that_cannot_be_written_is_one_message(workshop: Workshop) -> None:
    (workshop.folder / "file").write_text("not a folder")

    for command in (["env"], ["run", str(workshop.write_job())]):
        done = workshop.inv(*command, LEASEHOLD_HOME=str(workshop.folder / "file" / "home"))
        assert done.returncode == 2, done.stderr
        assert "LEASEHOLD_HOME" in done.stderr
        assert "Traceback" not in done.stderr


def test_detach_and_foreground_exclude_each_other(workshop: Workshop) -> None:
    done = workshop.inv("run", str(workshop.write_job()), "--detach", "--foreground")

    assert done.returncode == 2
    assert "--foreground" in done.stderr


def test_a_folder_is_not_a_job(workshop: Workshop) -> None:
    done = workshop.inv("run", str(workshop.folder))

    assert done.returncode == 2
    assert "folder" in done.stderr


def test_reap_without_any_key_does_not_say_that_all_is_well(workshop: Workshop) -> None:
    done = workshop.inv("reap")

    assert done.returncode == 3, done.stderr
    assert "looked at: local" in done.stderr
    assert workshop.inv("reap", "--cloud", "local").returncode == 0


@pytest.mark.parametrize(
    ("url", "word"), [("127.0.0.1:1", "no address"), ("", "--base-url")], ids=["no scheme", "no server"]
)
def test_dispatch_refuses_what_is_no_server(workshop: Workshop, url: str, word: str) -> None:
    workshop.write_job()
    where = ["--base-url", url] if url else []

    done = workshop.inv("dispatch", "trial.jsonl", "out", *where)

    assert done.returncode == 2, done.stderr
    assert word in done.stderr


def test_dispatch_says_that_a_server_does_not_answer_and_after_an_interrupt_how_to_go_on(workshop: Workshop) -> None:
    workshop.write_input(workshop.folder / "one.jsonl", lines=3, max_tokens=4)
    log = workshop.folder / "typed.log"

    waiting = workshop.start("dispatch", "one.jsonl", "out", "--base-url", "http://127.0.0.1:9")
    workshop.wait_for("a word about the server", lambda: "does not answer yet" in log.read_text())
    os.killpg(waiting.pid, signal.SIGINT)

    assert waiting.wait(20) == 130
    words = log.read_text()
    assert words.count("does not answer yet") == 1
    assert "out: stopped; what is answered is kept\n  The same command goes on where it stopped." in words


def test_dispatch_takes_its_key_from_the_environment_and_puts_results_in_order(workshop: Workshop) -> None:
    workshop.write_input(workshop.folder / "one.jsonl", lines=40, max_tokens=4)
    address = workshop.start_engine(key="sesame")
    flags = ["--base-url", address, "--ordered", "--key-env", "SERVERS_KEY"]

    unset = workshop.inv("dispatch", "one.jsonl", "out", *flags)
    wrong = workshop.inv("dispatch", "one.jsonl", "elsewhere", *flags, SERVERS_KEY="no")
    right = workshop.inv("dispatch", "one.jsonl", "out", *flags, SERVERS_KEY="sesame")

    assert (unset.returncode, "SERVERS_KEY is not set" in unset.stderr) == (3, True)
    assert wrong.returncode == 10, wrong.stderr
    assert right.returncode == 0, right.stderr
    lines = (workshop.folder / "out" / "output.jsonl").read_text().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"id-{number}" for number in range(40)]
    assert "sesame" not in (workshop.folder / "out" / "manifest.json").read_text()


def test_dispatch_of_another_input_into_the_same_folder_is_an_error_and_no_success(workshop: Workshop) -> None:
    workshop.write_input(workshop.folder / "one.jsonl", lines=3, max_tokens=4)
    workshop.write_input(workshop.folder / "two.jsonl", lines=5, max_tokens=4)
    target = ["--base-url", workshop.start_engine()]

    first = workshop.inv("dispatch", "one.jsonl", "out", *target)
    second = workshop.inv("dispatch", "two.jsonl", "out", *target)

    assert first.returncode == 0, first.stderr
    assert second.returncode == 2, second.stderr
    assert "answered" not in second.stderr
