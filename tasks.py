"""The command line: one short task a command, no logic. `./inv TASK --help` shows a task's flags.

The project's modules are imported inside the tasks, so that `./inv --list` does not wait for all of them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from invoke.context import Context
from invoke.tasks import task

_RUN = "the run, or any unique start of its id; left out: the latest"
_JSON = "print data as JSON on stdout"


@task(help={"keep": "keep Pulumi's stack (without machines) to look at", "json": _JSON})
def demo(_context: Context, keep: bool = False, json: bool = False) -> None:
    """Run jobs/demo.yaml on this machine, start to end."""
    from stacks.run_folder import PROJECT
    from stacks.running import run_job

    sys.exit(run_job(PROJECT / "jobs" / "demo.yaml", keep=keep, as_json=json))


@task(help={"json": _JSON})
def doctor(_context: Context, json: bool = False) -> None:
    """Show what is installed, which keys are set, and whether each cloud answers."""
    from stacks.doctor import report_checks

    sys.exit(report_checks(as_json=json))


@task(iterable=["job"], help={"job": "a job file; may be repeated", "json": _JSON})
def validate(_context: Context, job: list[str], json: bool = False) -> None:
    """Check jobs and their input, every problem at once; contacts nothing."""
    from stacks.validation import report_problems

    sys.exit(report_problems([Path(each) for each in job], as_json=json))


@task(help={"template": "the schema of a template instead of a job's"})
def schema(_context: Context, template: bool = False) -> None:
    """Print the JSON Schema of a job, or of a template."""
    from schemas.spec_schema import render_schema
    from stacks.console import print_text

    print_text(render_schema("template" if template else "job"))


@task
def new(_context: Context) -> None:
    """Print a commented job to start from: ./inv new > my-job.yaml."""
    from schemas.job_skeleton import render_job_skeleton
    from stacks.console import print_text

    print_text(render_job_skeleton())


@task(
    help={
        "job": "only what this job could use",
        "gpu": "only this GPU, by our name or the cloud's id",
        "count": "GPUs on one machine",
        "cloud": "only this cloud",
        "json": _JSON,
    }
)
def offers(
    _context: Context, job: str = "", gpu: str = "", count: int = 1, cloud: str = "", json: bool = False
) -> None:
    """Show what could be rented now, with prices."""
    from stacks.offers import report_offers

    sys.exit(report_offers(job=job, gpu=gpu, count=count, cloud=cloud, as_json=json))


@task(help={"job": "the job file", "limit": "only the first so many lines", "json": _JSON})
def plan(_context: Context, job: str, limit: str = "", json: bool = False) -> None:
    """Show offers, cost and limits of a job; spends nothing."""
    from stacks.running import parse_limit, show_plan

    show_plan(Path(job), line_limit=parse_limit(limit), as_json=json)


@task(
    iterable=["job"],
    help={
        "job": "the job file; may be repeated: each is a run of its own, and one that fails does not stop the others",
        "run": "the id of the new run; left out: <job>-<date>-<random>",
        "limit": "only the first so many lines, a cheap trial",
        "parallel": "of several jobs, so many at a time",
        "max-usd": "of several jobs: what they may cost together; a job starts only if all that it may spend is left",
        "yes": "do not ask before money is spent",
        "detach": "print the run's id and return at once",
        "foreground": "keep the run in this process group, for CI runners that kill detached processes",
        "keep": "keep Pulumi's stack (without machines) to look at",
        "json": _JSON,
    },
)
def run(
    _context: Context,
    job: list[str],
    run: str = "",
    limit: str = "",
    parallel: str = "",
    max_usd: str = "",
    yes: bool = False,
    detach: bool = False,
    foreground: bool = False,
    keep: bool = False,
    json: bool = False,
) -> None:
    """Run a job: rent machines, answer every request, give the machines back, prove it."""
    from stacks.running import parse_limit, pick_one_job, run_job

    if len(job) > 1:
        from stacks.many_jobs import refuse_flags_of_one_job, run_jobs_of_flags

        refuse_flags_of_one_job({"--run": run, "--detach": detach})
        sys.exit(
            run_jobs_of_flags(
                [Path(each) for each in job],
                os.environ,
                parallel=parallel,
                max_usd=max_usd,
                line_limit=parse_limit(limit),
                confirm=not yes,
                foreground=foreground,
                keep=keep,
                as_json=json,
            )
        )
    code = run_job(
        pick_one_job(job),
        run=run,
        line_limit=parse_limit(limit),
        confirm=not yes,
        detach=detach,
        foreground=foreground,
        keep=keep,
        as_json=json,
    )
    sys.exit(code)


@task(help={"run": _RUN + "; without it: all runs", "json": _JSON})
def status(_context: Context, run: str = "", json: bool = False) -> None:
    """Show the state of a run, or of all runs."""
    from stacks.reading import report_status

    report_status(run, as_json=json)


@task(help={"run": _RUN})
def follow(_context: Context, run: str = "") -> None:
    """Watch a run until it has ended; Ctrl-C ends only the watching."""
    from stacks.running import follow_existing

    sys.exit(follow_existing(run))


@task(help={"run": _RUN, "source": "events, dispatch, engine, boot, lifecycle or pulumi"})
def logs(_context: Context, run: str = "", source: str = "events") -> None:
    """Print a run's log."""
    from stacks.reading import print_logs

    print_logs(run, source)


@task(help={"run": _RUN, "output": "copy the results to this folder"})
def results(_context: Context, run: str = "", output: str = "") -> None:
    """Say where a run's results are, or copy them."""
    from stacks.reading import report_results

    report_results(run, output)


@task(help={"run": _RUN, "json": _JSON})
def receipt(_context: Context, run: str = "", json: bool = False) -> None:
    """Show what a run has cost."""
    from stacks.reading import report_receipt

    report_receipt(run, as_json=json)


@task(help={"run": _RUN})
def cancel(_context: Context, run: str = "") -> None:
    """Stop a run: keep what is finished, give the machines back."""
    from stacks.running import cancel_run

    sys.exit(cancel_run(run))


@task(help={"run": _RUN, "force": "without Pulumi's lock and state: sweep the clouds by the lease alone"})
def release(_context: Context, run: str = "", force: bool = False) -> None:
    """Give back all machines of a run and prove it."""
    from stacks.running import release_existing

    sys.exit(release_existing(run, force=force))


_RESUME_HELP = {
    "run": "the earlier run, or any unique start of its id; left out: the latest",
    "job": "another job file with the same requests, such as one for another cloud; left out: the earlier run's",
    "new-run": "the id of the new run; left out: <job>-<date>-<random>",
    "limit": "only the first so many lines, 0 for all; left out: as in the earlier run",
    "yes": "do not ask before money is spent",
    "detach": "print the new run's id and return at once",
    "foreground": "keep the run in this process group, for CI runners that kill detached processes",
    "json": _JSON,
}


@task(help=_RESUME_HELP)
def resume(
    _context: Context,
    run: str = "",
    job: str = "",
    new_run: str = "",
    limit: int = -1,
    yes: bool = False,
    detach: bool = False,
    foreground: bool = False,
    json: bool = False,
) -> None:
    """Do what a run has not finished, in a new run whose results are the whole: old answers and new ones."""
    from stacks.resuming import resume_run

    code = resume_run(
        run,
        mode="resume",
        job=job,
        new_run=new_run,
        line_limit=limit,
        confirm=not yes,
        detach=detach,
        foreground=foreground,
        as_json=json,
    )
    sys.exit(code)


@task(help=_RESUME_HELP)
def retry(
    _context: Context,
    run: str = "",
    job: str = "",
    new_run: str = "",
    limit: int = -1,
    yes: bool = False,
    detach: bool = False,
    foreground: bool = False,
    json: bool = False,
) -> None:
    """Like resume, and send again what failed for good; failed lines may have been corrected."""
    from stacks.resuming import resume_run

    code = resume_run(
        run,
        mode="retry",
        job=job,
        new_run=new_run,
        line_limit=limit,
        confirm=not yes,
        detach=detach,
        foreground=foreground,
        as_json=json,
    )
    sys.exit(code)


@task(help={"run": _RUN, "machine": "the machine's index"})
def ssh(_context: Context, run: str = "", machine: int = 0) -> None:
    """Open a shell on a machine of a run."""
    from stacks.reading import open_shell

    open_shell(run, machine)


@task(help={"yes": "end what is past its expiry; without it only show it", "cloud": "only this cloud", "json": _JSON})
def reap(_context: Context, yes: bool = False, cloud: str = "", json: bool = False) -> None:
    """Find machines that outlived their lease, and end them with --yes; needs no state."""
    from stacks.reaping import report_leftovers

    sys.exit(report_leftovers(act=yes, cloud=cloud, as_json=json))


@task(
    iterable=["base_url"],
    help={
        "input": "the batch file",
        "outdir": "the folder of the results; the same again resumes",
        "base-url": "a server that already runs; may be repeated",
        "max-concurrency": "requests in flight at each server; 0 finds out",
        "endpoint": "the path that every line must name",
        "key-file": "a file with the servers' API key",
    },
)
def dispatch(
    _context: Context,
    input: str,
    outdir: str,
    base_url: list[str],
    max_concurrency: int = 0,
    endpoint: str = "/v1/chat/completions",
    key_file: str = "",
) -> None:
    """Send a batch file to servers that you already run; rents nothing."""
    from stacks.dispatching import dispatch_to_servers

    code = dispatch_to_servers(
        Path(input), Path(outdir), base_url, max_concurrency=max_concurrency, endpoint=endpoint, key_file=key_file
    )
    sys.exit(code)


@task(help={"cloud": "runpod or lambda; left out: both"})
def emulate(_context: Context, cloud: str = "") -> None:
    """Run the clouds' emulators in the foreground and print the exports that point at them."""
    from stacks.emulating import run_emulators

    sys.exit(run_emulators(cloud))


@task
def env(_context: Context) -> None:
    """Print exports, so that eval "$(./inv env)" makes plain pulumi work."""
    from stacks.console import print_text
    from stacks.exports import render_exports

    print_text(render_exports(os.environ))


@task(help={"unit": "only the fast tests without effects", "chaos": "so many random kills through the real engine"})
def test(context: Context, unit: bool = False, chaos: int = 0) -> None:
    """Run the test suite; what stands after -- goes to pytest."""
    from toolchain.checks import run_tests

    sys.exit(run_tests(unit=unit, chaos=chaos, rest=context.remainder))


@task(help={"fix": "let ruff change what it can"})
def check(_context: Context, fix: bool = False) -> None:
    """Check format, lint and types."""
    from toolchain.checks import run_checks

    sys.exit(run_checks(fix=fix))


@task(
    help={
        "full": "5 rounds of 100,000 requests instead of 3 of 20,000",
        "gates": "what the dispatcher promises (knees, kills, uneven machines, memory) instead of the comparison",
        "output": "the JSON file for the figures",
    }
)
def bench(_context: Context, full: bool = False, gates: bool = False, output: str = "") -> None:
    """Measure the dispatcher beside the clients that people write by hand, against a stub engine."""
    from toolchain.checks import run_bench

    sys.exit(run_bench(full=full, gates=gates, output=output))
