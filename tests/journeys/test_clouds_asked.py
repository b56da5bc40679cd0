"""What RunPod and Lambda Cloud, emulated, are asked and told without any machine: refusals, plans, offers, doctor, emulate."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from schemas.job import load_job
from stacks.run_folder import PROJECT
from stacks.verbs.start import prepare_run
from tests.journeys.emulated_clouds import ON_LAMBDA, ON_RUNPOD, EmulatedClouds, open_emulated_clouds
from tests.journeys.workshop import Workshop

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]


@pytest.fixture
def clouds(workshop: Workshop) -> Iterator[EmulatedClouds]:
    with open_emulated_clouds(workshop) as made:
        yield made


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
        done = clouds.run(job, **{variable: key})

        assert done.returncode == 3, done.stderr
        assert variable in done.stderr and right in done.stderr and words in done.stderr
        assert "Traceback" not in done.stderr and "not-the-key" not in done.stderr
    assert not clouds.workshop.run_dir("locked").exists()


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
    done = clouds.run(clouds.write_job("odd", [candidate]))

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not clouds.workshop.run_dir("odd").exists()


def test_a_price_above_the_limit_is_exit_5_with_the_nearest_offers(clouds: EmulatedClouds) -> None:
    clouds.open("runpod", "lambda")
    candidates = [{**ON_RUNPOD, "max_usd_per_hour": 1}, {**ON_LAMBDA, "max_usd_per_hour": 0.5}]
    done = clouds.run(clouds.write_job("dear", candidates))

    assert done.returncode == 5, done.stderr
    assert "the nearest in USD: lambda A10 at 1.29, runpod H100-SXM secure at 2.99" in done.stderr


def test_every_job_that_is_shipped_and_rents_can_be_planned(
    clouds: EmulatedClouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, since starting one for each of them would take the time of a run."""
    clouds.open("runpod", "lambda")
    for name, value in clouds.workshop.environment.items():
        monkeypatch.setenv(name, value)
    shipped = sorted((PROJECT / "jobs").glob("*.yaml"))
    renting = [path for path in shipped if load_job(path).job.costs_money]

    plans = {path.name: prepare_run(path) for path in renting}

    assert {"runpod-h100.yaml", "lambda-a10.yaml", "either.yaml"} <= set(plans)
    sold_out = [name for name, plan in plans.items() if not plan.choices[0].offer.available]
    assert sold_out == []
    assert {cloud for plan in plans.values() for cloud in plan.clouds} == {"runpod", "lambda"}
    over = [name for name, plan in plans.items() if plan.estimate.likely_usd > (plan.job.limits.max_usd or 0)]
    assert over == []


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
