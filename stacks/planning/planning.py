"""Draws up a plan: loads the job, checks the input, asks the clouds for offers. Reads everything, rents nothing."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from providers.cloud import Need, Offer
from providers.registry import make_cloud
from providers.settings import list_emulated, load_cloud_settings
from runtime.batch.batch_input import InputReport, check_input
from runtime.objects.object_settings import is_object_address
from schemas.errors import CloudError, CredentialError, LeaseholdError, NoCapacity, Problem, SpecError
from schemas.job import Candidate, Job, LoadedJob, load_job
from schemas.shown_path import show_path
from stacks.planning.estimate import InputSummary
from stacks.planning.history import load_history
from stacks.planning.left_out import find_left_out
from stacks.planning.plan import Plan
from stacks.planning.plan_making import make_plan
from stacks.planning.prefix_claim import refuse_same_object, refuse_taken_prefix
from stacks.planning.staging import stage_job
from stacks.planning.token_count import count_tokens, find_tokenizer
from stacks.policy.gate import PolicyGate, list_policy_problems
from stacks.run_folder import get_home
from toolchain.version import find_version

# How long a machine that a cloud accepted may stay invisible: the local cloud shows it at once.
_SETTLE_S = {"local": 2.0}
_DEFAULT_SETTLE_S = 90.0
_PORTS = range(20000, 30000)
Notice = Callable[[str], None]


def draw_up_plan(
    job_file: Path, *, run: str, line_limit: int = 0, on_notice: Notice = lambda _: None, will_write: bool = True
) -> Plan:
    """Everything before money: job, template, input and offers; raises SpecError with all problems of job or input.

    on_notice hears one sentence about every candidate that is left out because its cloud did not answer. will_write: also
    raise CredentialError where the results could not be written; else that is a notice, and the plan goes without.
    """
    loaded = load_job(job_file)
    refuse_bad_output(loaded.job)
    refuse_by_policy(loaded)
    _look_at_prefix(loaded.job, on_notice, will_write=will_write)
    staged = stage_job(loaded)
    report = staged.name_source(check_job_input(staged.loaded, line_limit))
    report.raise_if_bad()
    plan = plan_work(staged.loaded, summarize(report), run=run, line_limit=line_limit, on_notice=on_notice)
    return staged.put_back(plan)


def _look_at_prefix(job: Job, on_notice: Notice, *, will_write: bool) -> None:
    try:
        refuse_taken_prefix(job)
    except CredentialError as error:
        if will_write:
            raise
        on_notice(f"whether a run still writes to {job.output} was not seen: {error.what}")


def refuse_bad_output(job: Job) -> None:
    """Raise SpecError for an output folder that cannot be written, or where the results would replace the input."""
    if not job.output:
        return
    if is_object_address(job.output):
        refuse_same_object(job)
        return
    output = Path(job.output)
    if Path(job.input).resolve() in [(output / name).resolve() for name in ("output.jsonl", "error.jsonl")]:
        raise SpecError(
            "the results would be written over the input",
            where=show_path(job.source),
            fix="Give output: another folder.",
        )
    there = next(each for each in (output, *output.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SpecError(
            f"output: {output} cannot be written", where=show_path(job.source), fix="Give output: another folder."
        )


def plan_work(
    loaded: LoadedJob, summary: InputSummary, *, run: str, line_limit: int = 0, on_notice: Notice = lambda _: None
) -> Plan:
    """The plan for a job whose input is known to be in order; `summary` counts what is to be sent."""
    gate = PolicyGate(loaded, os.environ)
    offers = gather_offers(gate.asked, on_notice=on_notice)
    plan = make_plan(
        run=run,
        job=loaded.job,
        template=loaded.template,
        summary=_count_prompts(loaded, summary, line_limit),
        offers=gate.sift(offers),
        measured=load_history(get_home()),
        emulated=list_emulated(load_cloud_settings(os.environ)),
        left_out=find_left_out(loaded.job, offers, ask=_ask_widely),
        ports=pick_ports(loaded.job.machines.replicas),
        settle_s=choose_settle_s((each.cloud for each in loaded.job.machines.candidates), os.environ),
        now=time.time(),
        line_limit=line_limit,
        leasehold=find_version(),
    )
    return msgspec.structs.replace(plan, policy=gate.result)


def _count_prompts(loaded: LoadedJob, summary: InputSummary, line_limit: int) -> InputSummary:
    """The summary with prompt tokens, where the model's tokenizer is on this computer."""
    tokenizer = find_tokenizer(loaded.template.spec.model_source, os.environ)
    if tokenizer is None:
        return summary
    counted = count_tokens(Path(loaded.job.input), tokenizer, total_bytes=summary.bytes, line_limit=line_limit)
    return msgspec.structs.replace(summary, counted=counted)


def check_job_input(loaded: LoadedJob, line_limit: int = 0) -> InputReport:
    """Read the whole input of a job and report every bad line."""
    job = loaded.job
    template = loaded.template
    return check_input(
        Path(job.input),
        endpoint=job.endpoint,
        model=template.model,
        most_tokens=template.most_tokens,
        line_limit=line_limit,
    )


def refuse_by_policy(loaded: LoadedJob) -> None:
    """Raise PolicyError for a job that breaks a rule, before its input is fetched or a cloud is asked."""
    PolicyGate(loaded, os.environ)


def check_job_policy(loaded: LoadedJob) -> tuple[list[Problem], list[Problem]]:
    """What the policy refuses, and as warnings what it leaves out, as far as it can be told without asking a cloud."""
    return list_policy_problems(loaded, os.environ)


def summarize(report: InputReport) -> InputSummary:
    return InputSummary(
        requests=report.lines,
        bytes=report.body_bytes,
        max_tokens_sum=report.max_tokens_sum,
        requests_without_max_tokens=report.max_tokens_unknown,
    )


def gather_offers(job: Job, *, on_notice: Notice = lambda _: None) -> list[tuple[Candidate, Sequence[Offer]]]:
    """What every candidate's cloud offers now; a cloud that fails is passed over, and told, while another answers."""
    found: list[tuple[Candidate, Sequence[Offer]]] = []
    errors: list[LeaseholdError] = []
    for candidate in job.machines.candidates:
        try:
            found.append((candidate, fetch_offers(candidate)))
        except (CloudError, CredentialError, NoCapacity) as error:
            errors.append(error)
    if errors and not any(offers for _, offers in found):
        raise errors[0]
    for each in errors:
        on_notice(f"a candidate is left out: {each}")
    return found


def fetch_offers(candidate: Candidate) -> Sequence[Offer]:
    """Offers for one candidate, from its cloud."""
    return _ask(candidate, make_need(candidate))


def _ask_widely(candidate: Candidate) -> Sequence[Offer]:
    """What its cloud has of the GPU in that tier, wherever and however much memory; nothing when it does not answer."""
    try:
        return _ask(candidate, Need(gpu=candidate.gpu, count=candidate.count, tier=candidate.tier))
    except LeaseholdError:
        return ()


def _ask(candidate: Candidate, need: Need) -> Sequence[Offer]:
    settings = load_cloud_settings(os.environ)
    cloud = make_cloud(candidate.cloud, settings, price_usd_per_hour=candidate.price_usd_per_hour)
    return cloud.offers(need)


def make_need(candidate: Candidate) -> Need:
    """What a candidate asks of its cloud; the price limit is applied by the plan, which can name what it refused."""
    return Need(
        gpu=candidate.gpu,
        min_gb=candidate.min_gb,
        count=candidate.count,
        tier=candidate.tier,
        regions=candidate.regions,
        interconnect=candidate.interconnect,
        sku_hint=candidate.sku_hint,
    )


def choose_settle_s(clouds: Iterable[str], environ: Mapping[str, str]) -> float:
    """The longest settle window of these clouds, in seconds; $LEASEHOLD_SETTLE_S overrides it (emulators)."""
    given = environ.get("LEASEHOLD_SETTLE_S", "").strip()
    if given:
        return _read_seconds("LEASEHOLD_SETTLE_S", given)
    return max(_SETTLE_S.get(cloud, _DEFAULT_SETTLE_S) for cloud in clouds)


def _read_seconds(variable: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise SpecError(f"{text!r} is no number of seconds", where=variable, fix="Write one, for example 90.")
    return seconds


def pick_ports(count: int) -> list[int]:
    """Ports for the engines that nobody on this computer listens on now: local machines share it."""
    start = random.SystemRandom().randrange(len(_PORTS))
    candidates = (_PORTS[(start + step) % len(_PORTS)] for step in range(len(_PORTS)))
    return list(_take_free(candidates, count))


def _take_free(candidates: Iterator[int], count: int) -> Iterator[int]:
    taken = 0
    for port in candidates:
        if taken == count:
            return
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            taken += 1
            yield port
    if taken < count:
        raise SpecError(f"there are not {count} free ports between {_PORTS.start} and {_PORTS.stop} on this computer")
