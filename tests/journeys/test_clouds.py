"""Whole runs on RunPod and Lambda Cloud, emulated: the real Pulumi engine, real SSH, real start scripts, a real engine."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.emulators.shim_folder import has_real_sshd
from tests.journeys.emulated_clouds import ON_LAMBDA, ON_RUNPOD, RUNPOD_H100, EmulatedClouds
from tests.journeys.onlooker import Onlooker, find_secrets, read_files, read_unique_line
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]

# One place only, so that a failed machine has no other offer to come from.
IN_KANSAS = {**ON_RUNPOD, "regions": ["US-KS-2"]}
IN_CALIFORNIA = {**ON_LAMBDA, "regions": ["us-west-1"]}
HUB_TOKEN = "hf_0123456789abcdefghijklmnopqrstuvwx"


@pytest.fixture
def clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    made = EmulatedClouds(workshop)
    yield made
    made.close()
    assert made.machine_processes() == []


def run(clouds: EmulatedClouds, job: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return clouds.workshop.inv("run", str(job), "--run", job.stem, "--yes", **environment)


def assert_all_answered(clouds: EmulatedClouds, name: str, lines: int = 40) -> None:
    """Everything that a run which went well shows: each line once, no mistake, no machine or key left, proven."""
    answers = clouds.workshop.lines(name)
    status = clouds.workshop.status(name)
    assert sorted(line["custom_id"] for line in answers) == sorted(f"id-{number}" for number in range(lines))
    assert all(line["response"]["status_code"] == 200 and line["error"] is None for line in answers)
    assert all(line["response"]["body"]["model"] == "qwen2.5-7b" for line in answers)
    assert not clouds.workshop.lines(name, "error.jsonl")
    assert (status["state"], status["released"], status["exit_code"]) == ("completed", "verified", 0)
    clouds.wait_until_nothing_is_left()


def posts(clouds: EmulatedClouds, cloud: str, path: str) -> list[Any]:
    """Every POST to a path of that account's API."""
    history = clouds.running[cloud].history()
    return [each for each in history if each.method == "POST" and each.path.endswith(path)]


def events(clouds: EmulatedClouds, name: str, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in clouds.workshop.events(name).splitlines()]
    return [event for event in found if event["event"] == kind]


def test_a_batch_through_runpod(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    done = run(clouds, clouds.write_job("pods", [ON_RUNPOD], replicas=2))

    assert done.returncode == 0, done.stderr
    assert_all_answered(clouds, "pods")
    assert len(clouds.machines()) == 2
    assert not [exchange for exchange in clouds.running["runpod"].history() if exchange.broken]


def test_a_batch_through_lambda_leaves_no_key_in_the_account(clouds: EmulatedClouds) -> None:
    clouds.open("lambda")
    done = run(clouds, clouds.write_job("instances", [ON_LAMBDA], replicas=2))

    assert done.returncode == 0, done.stderr
    assert_all_answered(clouds, "instances")
    (added,) = posts(clouds, "lambda", "/ssh-keys")
    assert added.status == 200 and added.body["name"].startswith("lh-")
    assert len(clouds.machines()) == 2


def test_a_candidate_without_capacity_falls_through_to_the_next_cloud(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    clouds.running["runpod"].set_fault("capacity_race")
    done = run(clouds, clouds.write_job("either", [IN_KANSAS, IN_CALIFORNIA]))

    assert done.returncode == 0, done.stderr
    assert_all_answered(clouds, "either")
    assert [each.status for each in posts(clouds, "runpod", "/pods")] == [400]
    assert [machine.cloud for machine in clouds.machines()] == ["lambda"]
    assert "no capacity for 1 x H100-SXM" in done.stderr


def test_no_secret_is_to_be_seen_anywhere(clouds: EmulatedClouds) -> None:
    """One machine on each cloud, with a model that needs a token; everything that anybody could read is searched."""
    clouds.open("runpod", "lambda")
    clouds.running["runpod"].set_stock(RUNPOD_H100, "US-KS-2", 1, tier="SECURE")
    # Both at the same time, and a batch that lasts until both work.
    clouds.running["runpod"].set_fault("ssh_after_s", 60)
    job = clouds.write_job(
        "discreet",
        [IN_KANSAS, IN_CALIFORNIA],
        template=None,
        deploy=clouds.make_deployment(auth_secret_ref="env:HF_TOKEN"),
        replicas=2,
        lines=400,
        max_tokens=100,
    )
    workshop = clouds.workshop
    folder = workshop.run_dir("discreet")

    with Onlooker(workshop.home / "state") as seen:
        done = workshop.inv("run", str(job), "--run", "discreet", "--yes", "--keep", HF_TOKEN=HUB_TOKEN)

    assert done.returncode == 0, done.stderr
    assert {machine.cloud for machine in clouds.machines()} == {"runpod", "lambda"}
    keys = [path for path in (folder / "hostkeys").iterdir() if path.suffix == ""]
    secrets = {
        **{f"key of {name}": emulator.key for name, emulator in clouds.running.items()},
        "token": HUB_TOKEN,
        "engine key": (folder / "engine.key").read_text(),
        "client key": read_unique_line(folder / "id_ed25519"),
    }
    host_keys = {f"host key {path.name}": read_unique_line(path) for path in keys}
    everything = secrets | host_keys
    assert len(host_keys) >= 2
    bodies = [(f"body {each.number}", json.dumps(each.body)) for each in all_exchanges(clouds)]
    commands = [(f"argv {text[:60]!r}", text) for text in seen.command_lines]
    states = [(f"state {path}", text) for (path, _), text in seen.states.items()]
    files = read_files(workshop.home, but=[folder / "engine.key", folder / "id_ed25519", folder / "hostkeys"])
    places = [*bodies, *commands, *states, *files, ("stdout", done.stdout), ("stderr", done.stderr)]
    # The search sees what there is: the pod's start, both engines' command lines, both machines in the state.
    assert find_secrets(host_keys, bodies) and find_secrets({"served name": "qwen2.5-7b"}, commands)
    assert any("engine-0" in text and "engine-1" in text and "ciphertext" in text for _, text in states)
    assert {"events.jsonl", "pulumi.log", "dispatch.log"} <= {Path(place).name for place, _ in places}
    assert find_secrets(secrets, bodies) == []
    assert find_secrets(everything, [place for place in places if not place[0].startswith("body")]) == []
    assert_all_answered(clouds, "discreet", lines=400)


def all_exchanges(clouds: EmulatedClouds) -> list[Any]:
    return [exchange for emulator in clouds.running.values() for exchange in emulator.history()]


@pytest.mark.parametrize(
    ("candidate", "variable", "right"),
    [
        (ON_RUNPOD, "RUNPOD_API_KEY", "read and write for pods"),
        (ON_LAMBDA, "LAMBDA_CLOUD_API_KEY", "an API key of the"),
    ],
)
def test_a_missing_or_wrong_key_is_exit_3_and_names_the_variable_and_the_least_right(
    clouds: EmulatedClouds, candidate: dict[str, Any], variable: str, right: str
) -> None:
    clouds.open(candidate["cloud"])
    job = clouds.write_job("locked", [candidate])

    for key, words in (("", f"{variable} is not set"), ("not-the-key", "does not accept the key")):
        done = run(clouds, job, **{variable: key})

        assert done.returncode == 3, done.stderr
        assert variable in done.stderr and right in done.stderr and words in done.stderr
        assert "Traceback" not in done.stderr and "not-the-key" not in done.stderr
    assert not clouds.workshop.run_dir("locked").exists()


def test_a_key_that_may_only_read_is_exit_3_when_the_first_machine_is_refused(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    done = run(
        clouds, clouds.write_job("reader", [ON_RUNPOD]), RUNPOD_API_KEY=clouds.running["runpod"].key + "_read_only"
    )

    assert done.returncode == 3, done.stderr
    assert "RUNPOD_API_KEY" in done.stderr and "read and write for pods" in done.stderr
    assert clouds.workshop.status("reader")["released"] == "verified"
    assert [each.status for each in posts(clouds, "runpod", "/pods")] == [403]


def test_a_cloud_without_a_key_is_left_out_and_told_while_another_has_offers(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    planned = clouds.workshop.inv("plan", str(clouds.write_job("half", [ON_RUNPOD, ON_LAMBDA])), RUNPOD_API_KEY="")

    assert planned.returncode == 0, planned.stderr
    assert "a candidate is left out" in planned.stderr and "RUNPOD_API_KEY is not set" in planned.stderr


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ({**ON_RUNPOD, "regions": ["US-KS-9"]}, "Nearest: US-KS-2"),
        ({**ON_LAMBDA, "regions": ["us-west-9"]}, "Nearest: us-west-3"),
        ({"cloud": "runpod", "gpu": "H1000"}, "Nearest: H100"),
        ({"cloud": "lambda", "gpu": "RTX-4090"}, "Nearest that it has: RTX-6000"),
        ({**ON_RUNPOD, "count": 64}, "Ask for 8 or fewer"),
        ({**ON_LAMBDA, "count": 16}, "Ask for one of these numbers: 1."),
        ({"cloud": "runpod", "gpu": "B200", "tier": "community"}, "Try tier secure"),
        ({**ON_LAMBDA, "tier": "secure"}, "Remove it; it is for runpod"),
    ],
)
def test_what_no_cloud_can_ever_give_is_exit_2_with_what_it_could(
    clouds: EmulatedClouds, candidate: dict[str, Any], words: str
) -> None:
    clouds.open(candidate["cloud"])
    done = run(clouds, clouds.write_job("odd", [candidate]))

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not clouds.workshop.run_dir("odd").exists()


def test_a_price_above_the_limit_is_exit_5_with_the_nearest_offers(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    candidates = [{**ON_RUNPOD, "max_usd_per_hour": 1}, {**ON_LAMBDA, "max_usd_per_hour": 0.5}]
    done = run(clouds, clouds.write_job("dear", candidates))

    assert done.returncode == 5, done.stderr
    assert "the nearest in USD: lambda A10 at 1.29, runpod H100-SXM secure at 2.99" in done.stderr


def test_no_capacity_anywhere_is_exit_11_with_what_was_tried_in_order(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    for emulator in clouds.running.values():
        emulator.set_fault("capacity_race")
    done = run(clouds, clouds.write_job("nowhere", [IN_KANSAS, IN_CALIFORNIA]))

    assert done.returncode == 11, done.stderr
    last = done.stderr.rpartition("tried in this order:")[2]
    assert "1. runpod H100-SXM x1 secure US-KS-2 at 2.99 USD/h: no capacity" in last
    assert "2. lambda A10 x1 us-west-1 at 1.29 USD/h: no capacity" in last
    assert clouds.workshop.status("nowhere")["released"] == "verified"
    assert clouds.machines() == []
    clouds.wait_until_nothing_is_left()


@pytest.mark.skipif(has_real_sshd(), reason="here no image can be without sshd")
def test_an_image_without_sshd_is_exit_4_with_the_pods_own_log(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    clouds.running["runpod"].set_fault("apt_get_fails")
    done = run(clouds, clouds.write_job("deaf", [IN_KANSAS]))

    assert done.returncode == 4, done.stderr
    log = (clouds.workshop.run_dir("deaf") / "boot-0.log").read_text()
    assert "sshd" in log and log.splitlines()[-1] in done.stderr
    status = clouds.workshop.status("deaf")
    assert (status["state"], status["released"]) == ("resource_failed", "verified")
    clouds.wait_until_nothing_is_left()


def test_a_machine_whose_gpu_does_not_answer_is_replaced_by_the_next_offer(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    clouds.running["runpod"].set_fault("nvidia_smi", "wrong_memory", count=1)
    done = run(clouds, clouds.write_job("blind", [{**ON_RUNPOD, "regions": ["US-KS-2", "US-TX-3"]}]))

    assert done.returncode == 0, done.stderr
    assert [machine.region for machine in clouds.machines()] == ["US-KS-2", "US-TX-3"]
    assert len(events(clouds, "blind", "machine_replaced")) == 1
    assert_all_answered(clouds, "blind")


@pytest.mark.parametrize(
    ("candidate", "fault", "value"),
    [(IN_KANSAS, "create_hang_after_commit", 6), (IN_CALIFORNIA, "launch_500_after_commit", True)],
)
def test_a_create_whose_answer_is_lost_is_adopted_and_made_once(
    clouds: EmulatedClouds, candidate: dict[str, Any], fault: str, value: object
) -> None:
    clouds.open(candidate["cloud"])
    clouds.running[candidate["cloud"]].set_fault(fault, value, count=1)
    done = run(clouds, clouds.write_job("unclear", [candidate]))

    assert done.returncode == 0, done.stderr
    assert len(clouds.machines()) == 1
    assert len(events(clouds, "unclear", "create_unclear")) == 1
    assert_all_answered(clouds, "unclear")


def test_machines_boot_at_the_same_time_and_one_that_hangs_holds_back_none(clouds: EmulatedClouds) -> None:
    clouds.open("runpod")
    boot_s = 5.0
    emulator = clouds.running["runpod"]
    emulator.set_fault("ssh_after_s", boot_s * clouds.speed)
    emulator.set_fault("ssh_never", match="-6x")
    done = run(clouds, clouds.write_job("many", [IN_KANSAS], replicas=7, lines=600, max_tokens=100))

    assert done.returncode == 0, done.stderr
    ready = [event["data"]["seconds"] for event in events(clouds, "many", "ssh_answers")]
    # Pulumi alone serves four at a time: then the fifth would need two boots.
    assert len(ready) == 6 and max(ready) < 1.7 * boot_s
    assert_all_answered(clouds, "many", lines=600)


@pytest.mark.parametrize("job", ["runpod-h100.yaml", "lambda-a10.yaml", "either.yaml"])
def test_the_jobs_that_are_shipped_can_be_planned(clouds: EmulatedClouds, job: str) -> None:
    clouds.open("runpod", "lambda")
    planned = clouds.workshop.inv("plan", str(clouds.workshop.root_job(job)), "--json")

    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["choices"] and all(choice["offer"]["available"] for choice in plan["choices"][:1])


def test_offers_shows_every_cloud_with_prices_and_stock(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    shown = clouds.workshop.inv("offers", "--gpu", "H100")
    found = json.loads(clouds.workshop.inv("offers", "--gpu", "H100-SXM", "--json").stdout)
    unknown = clouds.workshop.inv("offers", "--gpu", "H1000")
    locked = clouds.workshop.inv("offers", "--gpu", "A10", RUNPOD_API_KEY="", LAMBDA_CLOUD_API_KEY="")

    assert shown.returncode == 0, shown.stderr
    assert "H100-PCIE" in shown.stdout and "us-west-3" in shown.stdout and "2.99" in shown.stdout
    assert {offer["cloud"] for offer in found} == {"runpod", "lambda"}
    assert [offer["price_usd_per_hour"] for offer in found] == sorted(offer["price_usd_per_hour"] for offer in found)
    assert unknown.returncode == 2 and "Nearest: H100" in unknown.stderr
    assert locked.returncode == 3 and "RUNPOD_API_KEY is not set" in locked.stderr


def test_doctor_says_what_each_key_can_do_and_knows_a_retired_api(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    old = clouds.running["runpod"].base_url.replace("/v2", "/v1")

    def ask(**environment: str) -> tuple[int, dict[str, Any]]:
        done = clouds.workshop.inv("doctor", "--json", **environment)
        return done.returncode, {check["name"]: check for check in json.loads(done.stdout)}

    code, well = ask()
    wrong_code, wrong = ask(RUNPOD_API_KEY="not-the-key", LAMBDA_CLOUD_API_KEY="")
    old_code, retired = ask(RUNPOD_BASE_URL=old)

    assert code == 0 and {well[name]["verdict"] for name in ("runpod", "lambda")} == {"ok"}
    assert "listing and prices work" in well["runpod"]["detail"]
    assert wrong_code == 1 and wrong["runpod"]["verdict"] == "broken" and wrong["lambda"]["verdict"] == "missing"
    assert "read and write for pods" in wrong["runpod"]["detail"] and "not-the-key" not in wrong["runpod"]["detail"]
    assert (
        old_code == 1 and "HTTP 410" in retired["runpod"]["detail"] and "RUNPOD_BASE_URL" in retired["runpod"]["detail"]
    )


def test_emulate_prints_exports_that_work_until_ctrl_c(workshop: Workshop) -> None:
    log = workshop.folder / "typed.log"
    process = workshop.start("emulate")
    workshop.wait_for("both emulators", lambda: log.exists() and "Ctrl-C" in log.read_text(), timeout_s=30)
    words = [shlex.split(line) for line in log.read_text().splitlines() if line.startswith("export ")]
    exports = dict(word[1].split("=", 1) for word in words)

    offers = workshop.inv("offers", "--gpu", "H100-SXM", "--json", **exports)
    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 0
    assert {offer["cloud"] for offer in json.loads(offers.stdout)} == {"runpod", "lambda"}
    assert list((workshop.home / "emulators").iterdir()) == []
    workshop.wait_until_nothing_is_left()
