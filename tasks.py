"""The command line: one short task a command, no logic. `./inv TASK --help` shows a task's flags.

The project's modules are imported inside the tasks, so that `./inv --list` does not wait for all of them.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from invoke.context import Context
from invoke.tasks import Task
from invoke.tasks import task as make_task

from toolchain.short_flags import ShortFlagTask

task = functools.partial(make_task, klass=ShortFlagTask)

_RUN = "the run, or any unique start of its id; left out: the latest"
_JSON = "print data as JSON on stdout"


@task(help={"keep": "keep Pulumi's stack (without machines) to look at", "json": _JSON})
def demo(_context: Context, keep: bool = False, json: bool = False) -> None:
    """Run jobs/demo.yaml on this machine, start to end."""
    from stacks.run_folder import PROJECT
    from stacks.verbs.running import run_job
    from stacks.verbs.start_options import StartOptions

    sys.exit(run_job(PROJECT / "jobs" / "demo.yaml", options=StartOptions(keep=keep, as_json=json)))


@task(help={"json": _JSON})
def doctor(_context: Context, json: bool = False) -> None:
    """Show what is installed, which keys are set, and whether each cloud answers."""
    from stacks.verbs.doctor import report_checks

    sys.exit(report_checks(as_json=json))


@task(
    iterable=["job"],
    help={
        "job": "a job file, or a template; may be repeated",
        "json": _JSON,
        "github": "print annotations for a GitHub workflow on stdout",
    },
)
def validate(_context: Context, job: list[str], json: bool = False, github: bool = False) -> None:
    """Check jobs with their templates and inputs, every problem at once; contacts nothing."""
    from stacks.verbs.validation import report_problems

    sys.exit(report_problems([Path(each) for each in job], os.environ, as_json=json, as_github=github))


@task(
    help={
        "template": "the schema of a template instead of a job's",
        "policy": "the schema of the policy's file instead",
        "page": "bring docs/jobs.md and docs/json.md up to date instead",
    }
)
def schema(_context: Context, template: bool = False, policy: bool = False, page: bool = False) -> None:
    """Print the JSON Schema of a job, of a template, or of a policy."""
    from schemas.spec_schema import render_schema
    from stacks.terminal.console import print_text
    from stacks.verbs.json_page import write_pages

    if page:
        write_pages()
        return
    print_text(render_schema("template" if template else "policy" if policy else "job"))


@task(
    help={
        "template": "a job for this template, name or name@version",
        "model": "a job with a deployment of its own: owner/model, builtin:tiny-chat or a .gguf file",
        "gpu": "the GPU to rent",
        "cloud": "runpod, lambda or local",
        "input": "the batch file",
        "name": "the job's name",
        "endpoint": "what the lines ask for, such as /v1/embeddings",
    }
)
def new(
    _context: Context,
    template: str = "",
    model: str = "",
    gpu: str = "",
    cloud: str = "",
    input: str = "",
    name: str = "",
    endpoint: str = "",
) -> None:
    """Print a commented job to start from: ./inv new > my-job.yaml."""
    from stacks.terminal.console import print_text
    from stacks.verbs.job_flags import JobFlags
    from stacks.verbs.job_writing import render_example

    flags = JobFlags(model=model, gpu=gpu, cloud=cloud, input=input, name=name, endpoint=endpoint)
    print_text(render_example(template=template, flags=flags))


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
    from stacks.verbs.offers import report_offers

    sys.exit(report_offers(job=job, gpu=gpu, count=count, cloud=cloud, as_json=json))


@task(
    help={
        "job": "the job file",
        "limit": "only the first so many lines",
        "markdown": "print Markdown for a pull request on stdout; without a cloud's key, what is known offline",
        "json": _JSON,
    }
)
def plan(_context: Context, job: str, limit: str = "", markdown: bool = False, json: bool = False) -> None:
    """Show offers, cost and limits of a job; spends nothing."""
    from stacks.verbs.markdown_report import print_plan_markdown
    from stacks.verbs.running import parse_limit, show_plan

    if markdown:
        print_plan_markdown(Path(job), line_limit=parse_limit(limit))
    else:
        show_plan(Path(job), line_limit=parse_limit(limit), as_json=json)


@task(
    help={
        "base": "a commit or branch",
        "affected": "also the jobs whose input, template or policy has changed",
        "json": _JSON,
    }
)
def changed_jobs(_context: Context, base: str, affected: bool = False, json: bool = False) -> None:
    """Print the jobs that have changed since a commit, one a line, as git sees it."""
    from stacks.verbs.changed_jobs import report_changed_jobs

    report_changed_jobs(base, affected=affected, as_json=json)


@task(
    iterable=["job"],
    help={
        "job": "the job file; may be repeated: each is a run of its own, and one that fails does not stop the others",
        "run": "the id of the new run; left out: <job>-<date>-<random>",
        "limit": "only the first so many lines, a cheap trial",
        "parallel": "of several jobs, so many at a time",
        "max-usd": "of several jobs: what they may cost together; a job starts only if all that it may spend is left;"
        " with --model: what the run may cost",
        "yes": "do not ask before money is spent",
        "detach": "print the run's id and return at once",
        "foreground": "keep the run in this process group, for CI runners that kill detached processes",
        "keep": "keep Pulumi's stack (without machines) to look at",
        "json": _JSON,
        "model": "without a job file: owner/model of the hub, builtin:tiny-chat or a .gguf file; the job is kept in jobs/",
        "gpu": "with --model: the GPU to rent",
        "cloud": "with --model: runpod, lambda or local",
        "input": "with --model: the batch file",
        "output": "with --model: the folder of the results",
        "endpoint": "with --model: what the lines ask for; left out: what the first one says",
        "count": "with --model: GPUs on one machine",
        "replicas": "with --model: how many machines",
        "name": "with --model: the job's name",
        "max-hours": "with --model: how long it may take",
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
    model: str = "",
    gpu: str = "",
    cloud: str = "",
    input: str = "",
    output: str = "",
    endpoint: str = "",
    count: int = 0,
    replicas: int = 0,
    name: str = "",
    max_hours: str = "",
) -> None:
    """Run a job: rent machines, answer every request, give the machines back, prove it."""
    from stacks.verbs.job_flags import JobFlags
    from stacks.verbs.running import parse_limit, pick_job, run_job
    from stacks.verbs.start_options import StartOptions
    from stacks.verbs.telling import delivering_late

    flags = JobFlags(
        model=model,
        gpu=gpu,
        cloud=cloud,
        input=input,
        output=output,
        endpoint=endpoint,
        name=name,
        count=count,
        replicas=replicas,
        max_usd=max_usd,
        max_hours=max_hours,
    )
    options = StartOptions(confirm=not yes, detach=detach, foreground=foreground, keep=keep, as_json=json)
    if len(job) > 1:
        from stacks.verbs.many_jobs import refuse_flags_of_one_job, run_jobs_of_flags

        refuse_flags_of_one_job({"--run": run, "--detach": detach}, flags)
        files = [Path(each) for each in job]
        with delivering_late():
            code = run_jobs_of_flags(
                files, os.environ, parallel=parallel, max_usd=max_usd, line_limit=parse_limit(limit), options=options
            )
        sys.exit(code)
    with delivering_late():
        code = run_job(pick_job(job, flags), options=options, run=run, line_limit=parse_limit(limit))
    sys.exit(code)


@task(help={"run": _RUN + "; without it: all runs", "json": _JSON})
def status(_context: Context, run: str = "", json: bool = False) -> None:
    """Show the state of a run, or of all runs."""
    from stacks.verbs.telling import show_status

    show_status(run, as_json=json)


@task(help={"run": _RUN, "json": "print the events as JSON lines on stdout"})
def follow(_context: Context, run: str = "", json: bool = False) -> None:
    """Watch a run until it has ended; Ctrl-C ends only the watching."""
    from stacks.verbs.running import follow_existing

    sys.exit(follow_existing(run, as_json=json))


@task(
    help={
        "run": _RUN,
        "source": "events, dispatch, engine, boot, lifecycle or pulumi",
        "json": "print JSON lines: the events, or one object for each line of another log",
    }
)
def logs(_context: Context, run: str = "", source: str = "events", json: bool = False) -> None:
    """Print a run's log."""
    from stacks.verbs.reading import print_logs

    print_logs(run, source, as_json=json)


@task(help={"run": _RUN, "output": "copy the results to this folder", "json": _JSON})
def results(_context: Context, run: str = "", output: str = "", json: bool = False) -> None:
    """Say where a run's results are, or copy them."""
    from stacks.verbs.reading import report_results
    from stacks.verbs.telling import delivering_late

    with delivering_late():
        report_results(run, output, as_json=json)


@task(help={"run": _RUN, "json": _JSON})
def receipt(_context: Context, run: str = "", json: bool = False) -> None:
    """Show what a run has cost."""
    from stacks.verbs.reading import report_receipt
    from stacks.verbs.telling import delivering_late

    with delivering_late():
        report_receipt(run, as_json=json)


@task(
    help={
        "run": _RUN,
        "output": "write the page to this file",
        "show": "open it in a browser",
        "json": "print what the page would show as JSON on stdout, and write no page",
    }
)
def report(_context: Context, run: str = "", output: str = "", show: bool = False, json: bool = False) -> None:
    """Write a run's report: one HTML page that needs no network, to keep, send and print."""
    from stacks.report.report import write_report

    write_report(run, output=output, show=show, as_json=json)


@task(help={"run": _RUN})
def cancel(_context: Context, run: str = "") -> None:
    """Stop a run: keep what is finished, give the machines back."""
    from stacks.verbs.running import cancel_run
    from stacks.verbs.telling import delivering_late

    with delivering_late():
        sys.exit(cancel_run(run))


@task(help={"run": _RUN, "force": "without Pulumi's lock and state: sweep the clouds by the lease alone"})
def release(_context: Context, run: str = "", force: bool = False) -> None:
    """Give back all machines of a run and prove it."""
    from stacks.verbs.running import release_existing
    from stacks.verbs.telling import delivering_late

    with delivering_late():
        sys.exit(release_existing(run, force=force))


@task(help={"run": "the run, or any unique start of its id; left out: all runs of the last days"})
def notify(_context: Context, run: str = "") -> None:
    """Tell others now what ended runs could not tell, as their receivers were down."""
    from stacks.verbs.telling import tell_again

    sys.exit(tell_again(run))


_RESUME_HELP = {
    "run": "the earlier run, or any unique start of its id, or its s3://bucket/prefix/; left out: the latest",
    "job": "another job file with the same requests, such as one for another cloud; left out: the earlier run's",
    "new-run": "the id of the new run; left out: <job>-<date>-<random>",
    "limit": "only the first so many lines, 0 for all; left out: as in the earlier run",
    "yes": "do not ask before money is spent",
    "detach": "print the new run's id and return at once",
    "foreground": "keep the run in this process group, for CI runners that kill detached processes",
    "json": _JSON,
}


def _make_resuming_task(mode: Literal["resume", "retry"], about: str) -> Task[Callable[..., None]]:
    def go_on(
        _context: Context,
        run: str = "",
        job: str = "",
        new_run: str = "",
        limit: str = "",
        yes: bool = False,
        detach: bool = False,
        foreground: bool = False,
        json: bool = False,
    ) -> None:
        from stacks.verbs.prefix_resume import resume_from
        from stacks.verbs.resuming import AS_BEFORE, ResumeOptions
        from stacks.verbs.running import parse_limit
        from stacks.verbs.start_options import StartOptions
        from stacks.verbs.telling import delivering_late

        with delivering_late():
            start = StartOptions(confirm=not yes, detach=detach, foreground=foreground, as_json=json)
            line_limit = parse_limit(limit, left_out=AS_BEFORE)
            options = ResumeOptions(mode=mode, job=job, new_run=new_run, line_limit=line_limit, start=start)
            code = resume_from(run, options)
        sys.exit(code)

    go_on.__name__, go_on.__doc__ = mode, about
    return task(help=_RESUME_HELP)(go_on)  # type: ignore[no-any-return]


resume = _make_resuming_task(
    "resume", "Do what a run has not finished, in a new run whose results are the whole: old answers and new ones."
)
retry = _make_resuming_task(
    "retry", "Like resume, and send again what failed for good; failed lines may have been corrected."
)


@task(help={"run": _RUN, "machine": "the machine's index"})
def ssh(_context: Context, run: str = "", machine: int = 0) -> None:
    """Open a shell on a machine of a run."""
    from stacks.verbs.reading import open_shell

    open_shell(run, machine)


@task(help={"yes": "end what is past its expiry; without it only show it", "cloud": "only this cloud", "json": _JSON})
def reap(_context: Context, yes: bool = False, cloud: str = "", json: bool = False) -> None:
    """Find machines that outlived their lease, and end them with --yes; needs no state."""
    from stacks.releasing.reaping import report_leftovers
    from stacks.verbs.telling import delivering_late

    with delivering_late():
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
        "key-env": "the environment variable with the servers' API key",
        "ordered": "put the results into the order of the input at the end",
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
    key_env: str = "",
    ordered: bool = False,
) -> None:
    """Send a batch file to servers that you already run; rents nothing."""
    from stacks.verbs.dispatching import dispatch_to_servers

    code = dispatch_to_servers(
        Path(input),
        Path(outdir),
        base_url,
        max_concurrency=max_concurrency,
        endpoint=endpoint,
        key_file=key_file,
        key_env=key_env,
        ordered=ordered,
    )
    sys.exit(code)


@task(help={"cloud": "runpod or lambda; left out: both"})
def emulate(_context: Context, cloud: str = "") -> None:
    """Run the clouds' emulators in the foreground and print the exports that point at them."""
    from stacks.verbs.emulating import run_emulators

    sys.exit(run_emulators(cloud))


@task
def env(_context: Context) -> None:
    """Print exports, so that eval "$(./inv env)" makes plain pulumi work."""
    from stacks.exports import render_exports
    from stacks.terminal.console import print_text

    print_text(render_exports(os.environ))


@task(help={"shell": "bash, zsh or fish; left out: bash"})
def completion(_context: Context, shell: str = "bash") -> None:
    """Print what makes a shell complete ./inv: source <(./inv completion bash)."""
    from invoke.collection import Collection

    from providers.registry import CLOUDS
    from schemas.errors import SpecError
    from stacks.run_folder import PROJECT
    from stacks.terminal.console import print_text
    from stacks.verbs.reading import LOG_SOURCES
    from toolchain.completion import SHELLS, render_completion

    if shell not in SHELLS:
        raise SpecError(f"there is no completion for {shell!r}", fix=f"One of: {', '.join(SHELLS)}.")
    contexts = {each.name: each for each in Collection.from_module(sys.modules["tasks"]).to_contexts() if each.name}
    print_text(render_completion(shell, contexts, PROJECT, {"--source": LOG_SOURCES, "--cloud": tuple(CLOUDS)}))


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
