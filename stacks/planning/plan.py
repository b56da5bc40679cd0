"""The plan: the frozen decision of what to rent and run. Saved once as plan.json, then always the saved one is used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from providers.choice import Choice
from runtime.objects.output_prefix import InputObject
from schemas.errors import SpecError
from schemas.files import create_file
from schemas.job import Job
from schemas.status import Usage
from schemas.template import Template
from schemas.version import LeaseholdVersion
from stacks.planning.estimate import Estimate, InputSummary
from stacks.policy.policy import PolicyResult

VERSION = 1
# How long a release may try to prove that nothing is left before it says that it could not.
RELEASE_DEADLINE_S = 600.0


class PlannedMachine(msgspec.Struct, frozen=True, kw_only=True):
    """One of the run's machines; engine_port is unique within the run, since local machines share one computer."""

    index: int
    engine_port: int


class TakenOver(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has from an earlier one: answers with the tokens that they had cost there, and final failures."""

    mode: Literal["resume", "retry"]
    answers: int
    failures: int
    usage: Usage = Usage()


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Offers that a limit of one candidate (the first is 1) has removed. kinds: cloud, GPU and tier, the cheapest first."""

    candidate: int
    limit: str
    offers: int
    cheapest_usd_per_hour: float
    kinds: tuple[str, ...]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was decided before anything costs money. choices are tried in this order; line_limit 0 means all.

    lifetime_s: how long the lease lasts. settle_s: how long an unclear create may stay invisible. resumes: the earlier run
    whose results were taken over, "" for none; then `input` counts only what is left. staged: the job's input in S3 as it
    was when it was counted; the run reads the copy in its own folder. emulated: clouds that were emulators. leasehold: which one
    has decided this, None in plans from before that was kept.
    """

    version: int = VERSION
    run: str
    created_at: float
    job: Job
    template: Template
    input: InputSummary
    line_limit: int = 0
    choices: tuple[Choice, ...]
    machines: tuple[PlannedMachine, ...]
    lifetime_s: float
    settle_s: float
    estimate: Estimate
    left_out: tuple[LeftOut, ...] = ()
    resumes: str = ""
    taken_over: TakenOver | None = None
    staged: InputObject | None = None
    policy: PolicyResult | None = None
    emulated: tuple[str, ...] = ()
    leasehold: LeaseholdVersion | None = None

    @property
    def requests(self) -> int:
        """All requests of the run, those taken over included."""
        taken = self.taken_over
        return self.input.requests + (taken.answers + taken.failures if taken else 0)

    @property
    def clouds(self) -> tuple[str, ...]:
        """The clouds that any machine of this plan may be on."""
        return tuple(dict.fromkeys(choice.offer.cloud for choice in self.choices))


def save_plan(plan: Plan, path: Path) -> Plan:
    """Write the plan durably unless there is one already; the saved one is returned."""
    create_file(path, msgspec.json.format(msgspec.json.encode(plan)))
    return load_plan(path)


def load_plan(path: Path) -> Plan:
    """Read a saved plan; raises SpecError when it is missing, torn or of another version."""
    try:
        data = path.read_bytes()
        version = msgspec.json.decode(data, type=_Versioned).version
        if version != VERSION:
            raise SpecError(f"the plan has version {version}; this Leasehold reads {VERSION}", where=str(path))
        return msgspec.json.decode(data, type=Plan)
    except FileNotFoundError as error:
        raise SpecError("this run has no plan", where=str(path), fix="Is it the right run? ./inv status") from error
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SpecError(f"the plan cannot be read: {error}", where=str(path)) from error


class _Versioned(msgspec.Struct):
    """All that is sure about a plan of another version."""

    version: int
