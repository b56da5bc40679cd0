"""The workflows' shell steps, run here as a runner runs them, against emulated clouds and S3: so the YAML cannot rot.

The pull request's flow, with and without keys; the merge; a workflow that is cancelled, and one whose runner is gone; the
nightly reap; Pulumi alone. Inputs, results and Pulumi's state are in S3.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from providers.cloud import LaunchRequest, Need
from providers.keys import make_key_pair
from providers.registry import make_cloud
from providers.settings import load_cloud_settings
from runtime.objects.object_store import ObjectStore
from schemas.names import make_machine_name
from tests.journeys.checkout import ROOT, Checkout
from tests.journeys.emulated_clouds import ON_RUNPOD, EmulatedClouds
from tests.journeys.fake_github import TOKEN, FakeGitHub
from tests.journeys.workflow_run import JobRun
from tests.journeys.workshop import Workshop, end_hard, make_pulumi_home
from tests.runtime.object_service import ObjectService, serve_objects

pytestmark = [pytest.mark.engine, pytest.mark.timeout(150)]
ENOUGH_S = (60.0, 10.0)

WORKFLOWS = ROOT / ".github" / "workflows"
JOBS = WORKFLOWS / "jobs.yaml"


class Runner:
    """A checkout with emulated clouds and a bucket around it; every job of a workflow has a temporary folder of its own."""

    def __init__(self, workshop: Workshop, objects: ObjectService, bucket: str, clouds: EmulatedClouds) -> None:
        self.workshop, self.objects, self.bucket, self.clouds = workshop, objects, bucket, clouds
        self.store: ObjectStore = objects.open(f"s3://{bucket}")
        self.checkout = Checkout(workshop.folder / "checkout")
        # As on a runner: state and runs are in the checkout, and its own modules are what runs.
        workshop.home = self.checkout.folder / ".leasehold"
        del workshop.environment["LEASEHOLD_HOME"]
        workshop.environment["PYTHONPATH"] = str(self.checkout.folder)
        # Keys come from the workflow alone.
        workshop.environment |= dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), "/nonexistent")
        self._jobs = 0

    def job(
        self, workflow: Path, job: str, context: Mapping[str, str], *, keys: bool = False, **environ: str
    ) -> JobRun:
        self._jobs += 1
        own = {name: value for name, value in self.workshop.environment.items() if not name.endswith("_API_KEY")}
        secrets = {
            name: value for name, value in self.workshop.environment.items() if keys and name.endswith("_API_KEY")
        }
        variables, of_s3 = self._settings_of_s3()
        secrets |= of_s3 if keys else {}
        return JobRun(
            workflow,
            job,
            folder=self.checkout.folder,
            temp=self.workshop.folder / f"runner-{self._jobs}",
            environ={
                **own,
                "GITHUB_RUN_ID": "77",
                "GITHUB_RUN_ATTEMPT": "1",
                "GITHUB_REPOSITORY": "acme/jobs",
                **environ,
            },
            context={
                **{f"secrets.{name}": value for name, value in secrets.items()},
                **{f"vars.{name}": value for name, value in variables.items()},
                "strategy.job-index": "0",
                **context,
            },
        )

    def add_job(self, name: str, **fields: Any) -> None:
        """A job on an emulated pod, in the checkout's jobs/, from S3 to S3."""
        self.add(self.clouds.write_job(name, [ON_RUNPOD], **fields, **self.places(name)))

    def add(self, job: Path) -> None:
        """A job that names its places in S3: its file goes into the checkout, and its input into the bucket."""
        self.store.upload(job.with_suffix(".jsonl"), f"{job.stem}.jsonl")
        job.with_suffix(".jsonl").unlink()
        job.rename(self.checkout.folder / "jobs" / job.name)

    def places(self, name: str) -> dict[str, str]:
        return {"input": f"s3://{self.bucket}/{name}.jsonl", "output": f"s3://{self.bucket}/{name}/"}

    def read_ids(self, name: str) -> list[str]:
        """Of the answers that a job has in S3."""
        found = self.store.read(f"{name}/output.jsonl")
        return [json.loads(line)["custom_id"] for line in found[0].splitlines()] if found else []

    def count_parts(self, name: str) -> int:
        return sum("/parts/" in facts.key for facts in self.store.list(f"{name}/_leasehold"))

    def another(self) -> Runner:
        """A second one, with the same keys and nothing else."""
        folder = self.workshop.folder / "another"
        folder.mkdir()
        workshop = Workshop(folder)
        workshop.mark = self.workshop.mark
        workshop.environment = dict(self.workshop.environment)
        workshop.environment |= {"LEASEHOLD_STATE_DIR": str(folder / "pace"), "LEASEHOLD_HOME": ""}
        return Runner(workshop, self.objects, self.bucket, self.clouds)

    def as_a_person(self) -> dict[str, str]:
        """What a person exports at home who works on the same bucket and state."""
        variables, secrets = self._settings_of_s3()
        return {**variables, **secrets, "LEASEHOLD_HOME": str(self.workshop.folder / "at-home")}

    def _settings_of_s3(self) -> tuple[dict[str, str], dict[str, str]]:
        """The variables and the secrets of the repository."""
        given = self.objects.environment
        place = f"region=us-east-1&endpoint=http://127.0.0.1:{self.objects.port}&s3ForcePathStyle=true"
        variables = {"PULUMI_BACKEND_URL": f"s3://{self.bucket}?{place}"}
        variables |= {name: given[name] for name in ("AWS_REGION", "AWS_ENDPOINT_URL")}
        secrets = {name: given[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
        return variables, {**secrets, "PULUMI_CONFIG_PASSPHRASE": "what all runners know"}


@pytest.fixture(scope="module")
def objects() -> Iterator[ObjectService]:
    with serve_objects() as service:
        yield service


@pytest.fixture
def runner(workshop: Workshop, objects: ObjectService) -> Iterator[Runner]:
    made = Runner(workshop, objects, objects.make_bucket(), EmulatedClouds(workshop))
    yield made
    made.clouds.close()
    assert made.clouds.machine_processes() == []


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    made = FakeGitHub()
    yield made
    made.close()


def plan(runner: Runner, **secrets: str) -> JobRun:
    context = {"github.event.pull_request.base.sha": runner.checkout.base}
    return runner.job(JOBS, "plan", {**context, **{f"secrets.{name}": value for name, value in secrets.items()}}).run()


def comment(runner: Runner, github: FakeGitHub, text: str, token: str = TOKEN) -> JobRun:
    context = {
        "github.token": token,
        "github.event.pull_request.number": "5",
        "github.event.pull_request.base.sha": runner.checkout.base,
        "needs.plan.outputs.comment": text,
    }
    return runner.job(JOBS, "comment", context, GITHUB_API_URL=github.url).run()


def test_a_pull_request_is_validated_planned_and_commented_on_once(runner: Runner, github: FakeGitHub) -> None:
    runner.clouds.open("runpod")
    runner.add_job("tickets")
    runner.checkout.commit("add a job")
    github.add("<!-- leasehold plan -->\nI only look like it", kind="User")

    without_keys = plan(runner)
    commented = comment(runner, github, without_keys.outputs()["comment"])

    assert without_keys.failed == commented.failed == []
    assert without_keys.step("find the jobs").output == "jobs/tickets.yaml\n"
    assert without_keys.summary.read_text().strip() == without_keys.outputs()["comment"].strip()
    first = github.comments[1]["body"]
    assert "### `jobs/tickets.yaml`: valid, without prices" in first
    assert "not counted, since the input is in S3" in first and "`there are no keys for S3`" in first
    assert "at most **25.00 USD**" in first

    (runner.checkout.folder / "policy.yaml").write_text("version: 1\nregions: [US-KS-*]\nmax_usd_per_job: 30\n")
    runner.checkout.commit("have a policy")
    reader = {"S3_READER_KEY_ID": "reads", "S3_READER_SECRET_KEY": "only"}
    with_key = plan(runner, RUNPOD_CATALOG_KEY=runner.workshop.environment["RUNPOD_API_KEY"], **reader)
    commented = comment(runner, github, with_key.outputs()["comment"])

    assert with_key.failed == commented.failed == []
    assert len(github.comments) == 2, "the comment was edited, not written anew"
    second = github.comments[1]["body"]
    assert "### `jobs/demo.yaml`: ready" in second, "a policy that changed concerns every job"
    assert "### `jobs/tickets.yaml`: ready" in second and "**40** requests" in second
    assert "| cost in USD | **" in second and "Not looked at" not in second
    assert "| 1 | runpod | H100-SXM | secure | US-KS-2 | 2.99 | high |" in second and "| 2 | runpod" not in second
    assert "the plan keeps to policy.yaml (max_usd_per_job, regions)" in second
    assert "regions removes 3 offers of candidate 1: runpod H100-SXM in US-TX-3 at 2.99" in second
    assert github.comments[0]["body"].endswith("I only look like it")
    assert runner.clouds.machines() == []


def test_a_bad_job_fails_the_pull_request_and_the_comment_says_why(runner: Runner, github: FakeGitHub) -> None:
    runner.add_job("tickets", limits={"max_usd": 99, "max_hours": 1})
    runner.add_job("broken", machines={"replicas": "@octocat many", "candidates": [{"cloud": "runpod"}]})
    (runner.checkout.folder / "policy.yaml").write_text("version: 1\nmax_usd_per_job: 30\n")
    runner.checkout.commit("add bad jobs")

    done = plan(runner)
    text = done.outputs()["comment"]
    refused = comment(runner, github, text, token="of-a-fork")

    assert [(each.name, each.code) for each in done.failed] == [("validate", 2), ("plan", 5)]
    assert "::error file=jobs/broken.yaml,line=1" in done.step("validate").output
    assert "policy.max_usd_per_job" in done.step("validate").output
    assert "### `jobs/tickets.yaml`: refused, exit code 5" in text
    assert "### `jobs/broken.yaml`: refused, exit code 2" in text
    assert "@octocat" in text and all("`" in line for line in text.splitlines() if "@octocat" in line)
    assert refused.failed[0].code == 1 and "GitHub answered 403" in refused.failed[0].output
    assert github.comments == []


def test_a_merge_runs_what_has_changed_and_releases_it(runner: Runner) -> None:
    runner.clouds.open("runpod")
    runner.add_job("tickets")
    runner.checkout.commit("add a job")

    listed = runner.job(JOBS, "changed", {"github.event.before": runner.checkout.base, "inputs.job": ""}).run()
    assert listed.failed == []
    (job,) = json.loads(listed.outputs()["jobs"])
    done = runner.job(JOBS, "run", {"matrix.job": job}, keys=True).run()

    assert done.failed == []
    assert done.skipped == []
    status = runner.workshop.status("ci-77-1-0-tickets")
    assert (status["state"], status["released"], status["request_counts"]["completed"]) == ("completed", "verified", 40)
    assert "released and verified already" in done.step("release").output
    assert "### ci-77-1-0-tickets: finished" in done.summary.read_text()
    assert "### ci-77-1-0-tickets: released, verified" in done.summary.read_text()
    assert sorted(runner.read_ids("tickets")) == sorted(f"id-{number}" for number in range(40))
    assert runner.store.find("tickets/receipt.json") and runner.count_parts("tickets") == 0
    assert len(runner.clouds.machines()) == 1
    kept = done.fill(done.job["steps"][-1]["with"]["path"]).split()
    assert all((runner.checkout.folder / path).is_file() for path in kept if "error" not in path)
    runner.clouds.wait_until_nothing_is_left()


def test_by_hand_one_job_is_run_that_did_not_change(runner: Runner) -> None:
    listed = runner.job(JOBS, "changed", {"github.event.before": "", "inputs.job": "jobs/demo.yaml"}).run()

    assert json.loads(listed.outputs()["jobs"]) == ["jobs/demo.yaml"]


def test_a_run_that_never_started_needs_no_release(runner: Runner) -> None:
    done = runner.job(JOBS, "run", {"matrix.job": "jobs/none.yaml"}).run()

    assert [(each.name, each.code) for each in done.failed] == [("run", 2)]
    assert done.step("release").output == "nothing was started\n"


# Whether a runner's 10 s are enough depends on the computer; what comes when they are, and when not, does not.
@pytest.mark.parametrize("patience_s", [ENOUGH_S, (0.3, 0.1)], ids=["in time", "killed in the middle"])
def test_a_cancelled_workflow_leaves_no_machine(runner: Runner, patience_s: tuple[float, float]) -> None:
    """SIGINT, SIGTERM, kill -9, while requests are answered; then the steps that always run."""
    runner.clouds.open("runpod")
    runner.add_job("tickets", lines=4000, max_tokens=64, replicas=2)
    runner.checkout.commit("add a job")
    done = runner.job(JOBS, "run", {"matrix.job": "jobs/tickets.yaml"}, keys=True)
    done.patience_s = patience_s

    done.run(cancel_at="run", when=lambda: runner.workshop.wait_for_answers("ci-77-1-0-tickets", 20, timeout_s=90))

    is_in_time = patience_s == ENOUGH_S
    assert done.step("run").code == (130 if is_in_time else -9)
    assert done.step("release").code == 0, done.results
    assert ("released and verified already" in done.step("release").output) is is_in_time
    status = runner.workshop.status("ci-77-1-0-tickets")
    assert (status["state"], status["released"]) == ("cancelled", "verified")
    assert 20 <= len(runner.workshop.lines("ci-77-1-0-tickets")) < 4000
    assert "### ci-77-1-0-tickets: released, verified" in done.summary.read_text()
    assert len(runner.clouds.machines()) == 2
    runner.clouds.wait_until_nothing_is_left()


def test_a_run_whose_runner_is_gone_is_released_by_its_stack_and_goes_on_from_its_prefix(runner: Runner) -> None:
    runner.clouds.open("runpod")
    # More than a quick computer answers before the first part is seen.
    runner.add_job("tickets", lines=2000, max_tokens=64)
    runner.checkout.commit("add a job")
    lost = runner.job(JOBS, "run", {"matrix.job": "jobs/tickets.yaml"}, keys=True)

    def lose() -> None:
        runner.workshop.wait_for("a part in S3", lambda: runner.count_parts("tickets"), timeout_s=90)
        for _ in range(3):
            for process in runner.workshop.ours():
                end_hard(process)
        lost.is_gone = True

    lost.run(cancel_at="run", when=lose)
    shutil.rmtree(runner.checkout.folder)
    assert len([each for each in runner.clouds.machines() if not each.is_gone]) == 1

    another = runner.another()
    released = another.workshop.inv("release", "ci-77-1-0-tickets", **another.as_a_person())
    left = [each for each in runner.clouds.machines() if not each.is_gone]
    place = f"s3://{runner.bucket}/tickets/"
    listed = another.job(JOBS, "changed", {"github.event.before": "", "inputs.job": place}).run()
    (job,) = json.loads(listed.outputs()["jobs"])
    done = another.job(JOBS, "run", {"matrix.job": job}, keys=True, GITHUB_RUN_ID="78").run()

    assert released.returncode == 0 and "released, verified" in released.stdout, released.stderr
    assert left == []
    assert done.failed == []
    assert "taken over from ci-77-1-0-tickets" in done.step("run").output
    assert another.workshop.status("ci-78-1-0-tickets")["released"] == "verified"
    ids = runner.read_ids("tickets")
    assert len(ids) == len(set(ids)) == 2000
    runner.clouds.wait_until_nothing_is_left()


def test_the_nightly_reap_ends_what_outlived_its_lease_and_nothing_else(runner: Runner) -> None:
    runner.clouds.open("runpod")
    settings = load_cloud_settings(runner.workshop.environment)
    cloud = make_cloud("runpod", settings)
    offer = next(each for each in cloud.offers(Need(gpu="H100-SXM")) if each.available)
    now = int(time.time())
    for token, expires_at in (("abcdefghijkl", now - 7200), ("mnopqrstuvwx", now + 7200)):
        keys = make_key_pair()
        name = make_machine_name(token=token, index=0, attempt=1, expires_at=expires_at)
        cloud.launch(
            LaunchRequest(
                name=name,
                offer=offer,
                public_key=keys.public,
                host_private_key=keys.private,
                expires_at=now + 7200,
            )
        )

    done = runner.job(WORKFLOWS / "reap.yaml", "reap", {}, keys=True).run()

    assert done.failed == []
    left = [each.name for each in runner.clouds.running["runpod"].live_machines()]
    assert len(left) == 1 and "mnopqrstuvwx" in left[0]
    for each in cloud.list_ours("lh-"):
        cloud.terminate(each.id)


def test_a_reap_without_any_key_fails_instead_of_saying_that_all_is_well(runner: Runner) -> None:
    done = runner.job(WORKFLOWS / "reap.yaml", "reap", {}).run()

    assert done.results[0].code == 3


def test_pulumi_alone_runs_a_job_and_gives_everything_back(runner: Runner) -> None:
    runner.add(runner.workshop.write_job("byhand", **runner.places("byhand")))
    context = {"inputs.job": "jobs/byhand.yaml", "github.run_id": "77", "github.run_attempt": "1"}

    done = runner.job(WORKFLOWS / "pulumi-only.yaml.example", "run", context, keys=True).run(use=stand_in_for_pulumi)

    assert done.failed == []
    assert "60 of 60 requests answered" in done.step("up").output
    assert len(runner.workshop.lines("ci-77-1")) == 60
    lease = json.loads((runner.workshop.run_dir("ci-77-1") / "lease.json").read_bytes())
    assert lease["state"] == "released"
    assert sorted(runner.read_ids("byhand")) == sorted(f"id-{number}" for number in range(60))
    assert runner.count_parts("byhand") == 0 and runner.store.find("byhand/receipt.json")
    runner.workshop.wait_until_nothing_is_left()


def stand_in_for_pulumi(step: Mapping[str, Any], run: JobRun) -> tuple[int, str]:
    """What pulumi/actions does with these inputs, by the command line."""
    if not step["uses"].startswith("pulumi/actions@"):
        return 0, ""
    given = {name: run.fill(value) for name, value in step["with"].items()}
    assert set(given) == {"command", "stack-name", "cloud-url", "pulumi-version"}
    stack = shlex.quote(given["stack-name"])
    script = f"pulumi login {shlex.quote(given['cloud-url'])}\npulumi stack select {stack}\n"
    script += f"pulumi {given['command']} --yes --skip-preview --stack {stack}"
    environ = run.environment_of(step)
    environ["PULUMI_HOME"] = str(make_pulumi_home(Path(environ["RUNNER_TEMP"])))
    done = subprocess.run(
        ["bash", "-ec", script], env=environ, cwd=run.folder, capture_output=True, text=True, timeout=100
    )
    return done.returncode, done.stdout + done.stderr
