"""Finds what is wrong with whom to tell before anything is rented. Called by validate, plan, run and doctor; prints no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from schemas.errors import CredentialError, Problem, SpecError
from schemas.job import Job
from schemas.policy import Policy
from schemas.yaml_source import place_problem
from stacks.notifications.targets import find_address, list_targets, make_label

CODE = "bad_notify_address"
_PLACE = re.compile(r"(job|policy) notify\[(\d+)\]")


class TargetCheck(msgspec.Struct, frozen=True, kw_only=True):
    """labels: who can be told; problems: addresses that are none; warnings: addresses and secrets that are not set here."""

    labels: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def raise_if_bad(self) -> None:
        if self.problems:
            raise SpecError("somebody who is to be told has no usable address", problems=self.problems)


def check_targets(environ: Mapping[str, str], *, job: Job | None = None, policy: Policy | None = None) -> TargetCheck:
    """Whether everybody who would be told about a run can be, as far as it is known without asking them."""
    labels: list[str] = []
    problems: list[Problem] = []
    warnings: list[Problem] = []
    sources = {"job": job.source if job else "", "policy": policy.source if policy else ""}
    for name, target in list_targets(job.notify if job else (), policy.notify if policy else (), environ):
        try:
            labels.append(make_label(target, find_address(name, target, environ)))
        except CredentialError as error:
            message = f"{target.type} would not be told: {error.what}"
            warnings.append(_place(name, sources, message, "notify_not_set", error.fix))
        except SpecError as error:
            message = f"{target.type} cannot be told: {error.what}"
            problems.append(_place(name, sources, message, CODE, error.fix))
    return TargetCheck(labels=tuple(labels), problems=tuple(problems), warnings=tuple(warnings))


def _place(name: str, sources: Mapping[str, str], message: str, code: str, fix: str) -> Problem:
    """In the file where the target stands, or at the variable."""
    place = _PLACE.fullmatch(name)
    if place is None:
        return Problem(file=name, message=message, code=code, fix=fix)
    path = ("notify", int(place[2]))
    return place_problem(Path(sources[place[1]]), path, message, code=code, fix=fix)
