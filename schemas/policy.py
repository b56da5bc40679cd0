"""A policy as a frozen record: what jobs may do, whatever they ask for. Loaded by plan, validate and run."""

from __future__ import annotations

from pathlib import Path

import msgspec

from schemas.errors import SpecError
from schemas.job import CloudName
from schemas.notify import NotifyTarget, check_targets, make_targets
from schemas.problems import count_mistakes, merge_problems
from schemas.spec_check import check_spec
from schemas.yaml_source import load_document


class ImageRules(msgspec.Struct, frozen=True, kw_only=True):
    """allowed: patterns, empty means any image."""

    allowed: tuple[str, ...] = ()
    digest_required: bool = False


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that is None or empty forbids nothing. max_usd_per_hour is for all machines of a job together.

    regions, gpus and images.allowed are patterns in which * stands for anything. source: absolute path of its file.
    """

    version: int = 1
    max_usd_per_job: float | None = None
    max_usd_per_hour: float | None = None
    max_hours: float | None = None
    clouds: tuple[CloudName, ...] = ()
    regions: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    images: ImageRules = ImageRules()
    required_metadata: tuple[str, ...] = ()
    trust_remote_code: bool = True
    notify: tuple[NotifyTarget, ...] = ()
    source: str

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that forbid something, as they stand in the file."""
        simple = ("max_usd_per_job", "max_usd_per_hour", "max_hours", "clouds", "regions", "gpus", "required_metadata")
        named = {name: getattr(self, name) not in (None, ()) for name in simple}
        named["images.allowed"] = bool(self.images.allowed)
        named["images.digest_required"] = self.images.digest_required
        named["trust_remote_code"] = not self.trust_remote_code
        return tuple(name for name, is_set in named.items() if is_set)


def load_policy(path: Path) -> Policy:
    """Read and check a policy file; raises SpecError with every problem."""
    loaded = load_document(path)
    document = loaded.document
    if document is None:
        raise SpecError(count_mistakes("the policy", loaded.problems), where=str(path), problems=loaded.problems)
    problems = merge_problems(loaded.problems, check_spec(document, "policy").problems, check_targets(document))
    if problems:
        raise SpecError(count_mistakes("the policy", problems), where=str(path), problems=problems)
    source = path.resolve()
    data = {**document.data, "notify": make_targets(document.data, folder=source.parent), "source": str(source)}
    return msgspec.convert(data, Policy)
