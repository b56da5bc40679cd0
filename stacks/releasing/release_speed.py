"""How soon after the last result a run's machines were gone, and that was proven. Called at the end of a run, for its events."""

from __future__ import annotations

import msgspec

from providers.lease.lease import LEASE_FILE, load_lease
from schemas.errors import LeaseholdError
from schemas.events import append_event
from stacks.run_folder import RunFolder
from stacks.runs.ledger import read_ledger
from stacks.runs.run_status import read_progress


class ReleaseSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the dispatcher's end to the first look without the last machine, and to the proof."""

    gone_s: float
    proven_s: float


def note_release_speed(folder: RunFolder) -> None:
    """Put it into the run's events; nothing where there was no result, no machine or no proof."""
    speed = measure_release(folder)
    if speed is not None:
        text = (
            f"the last machine was gone {speed.gone_s:.1f} s after the last result, proven after {speed.proven_s:.1f} s"
        )
        data = {"gone_s": round(speed.gone_s, 2), "proven_s": round(speed.proven_s, 2)}
        append_event(folder.events, "release", "machines_gone", text, **data)


def measure_release(folder: RunFolder) -> ReleaseSpeed | None:
    """A machine that nobody saw go is gone when the lease's proof was made."""
    progress, entries = read_progress(folder), read_ledger(folder)
    if progress is None or progress.ended_at is None or not entries or not (folder.root / LEASE_FILE).exists():
        return None
    try:
        proof = load_lease(folder.root).proof
    except LeaseholdError:
        return None
    if proof is None:
        return None
    swept = {machine.id: machine.gone_at for cloud in proof.clouds for machine in cloud.terminated}
    last = max(entry.gone_at or swept.get(entry.id, proof.proven_at) for entry in entries)
    return ReleaseSpeed(
        gone_s=max(0.0, last - progress.ended_at), proven_s=max(0.0, proof.proven_at - progress.ended_at)
    )
