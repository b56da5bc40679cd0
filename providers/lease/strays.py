"""Machines that came to light after acquisition had given up on their create. Called by the life cycle now and then, so
that they do not cost money until the sweep finds them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from providers.clock import DEFAULT_WAITS, Clock, OnEvent, Waits
from providers.cloud import Cloud
from providers.lease.intents import CreateHistory, fold_histories, load_intents
from providers.lease.lease import hold_index
from providers.lease.termination import give_back
from schemas.errors import LeaseholdError


def end_strays(
    run_dir: Path,
    clouds: Mapping[str, Cloud],
    *,
    clock: Clock,
    settle_s: float,
    on_event: OnEvent,
    waits: Waits = DEFAULT_WAITS,
) -> tuple[str, ...]:
    """Give back what nobody keeps: latecomers and twins of unclear creates, and machines that nobody had seen when they were
    told to go or counted as never made; returns their ids. A cloud that does not answer, and an index that is being
    acquired, are left for the next time."""
    ended: list[str] = []
    for history in _written_off(run_dir, clock.now(), waits.request_timeout_s + settle_s):
        with contextlib.suppress(LeaseholdError), hold_index(run_dir, history.index, timeout_s=0.0):
            # Once more under the lock: an acquisition may have adopted it meanwhile.
            still = _written_off(run_dir, clock.now(), waits.request_timeout_s + settle_s)
            if history.name in {each.name for each in still} and history.cloud in clouds:
                ended += _end(run_dir, history, clouds[history.cloud], clock, waits, on_event)
    return tuple(ended)


def may_have_strays(run_dir: Path) -> bool:
    """Whether it is worth asking the clouds at all."""
    return any(_may_stray(each) for each in fold_histories(load_intents(run_dir).intents))


def _written_off(run_dir: Path, now: float, window_s: float) -> list[CreateHistory]:
    histories = fold_histories(load_intents(run_dir).intents)
    return [each for each in histories if _may_stray(each) and now >= each.sent_at + window_s]


def _may_stray(history: CreateHistory) -> bool:
    """Whether a machine of this name may come to light that nobody keeps."""
    return history.unclear or history.outcome == "absent" or bool(set(history.dropped_ids) - set(history.gone_ids))


def _end(
    run_dir: Path, history: CreateHistory, cloud: Cloud, clock: Clock, waits: Waits, on_event: OnEvent
) -> list[str]:
    kept = set() if history.outcome == "absent" else set(history.ids) - set(history.dropped_ids)
    listed = cloud.list_ours(history.name)
    strays = [state for state in listed if state.name == history.name and state.id not in kept]
    for state in strays:
        on_event("stray_machine", f"{history.cloud} machine {state.id} came late: giving it back", {"id": state.id})
        give_back(
            run_dir,
            cloud=cloud,
            cloud_name=history.cloud,
            id=state.id,
            name=history.name,
            price_usd_per_hour=state.price_usd_per_hour or history.price_usd_per_hour,
            clock=clock,
            deadline_s=waits.terminate_s,
            poll_s=waits.poll_s,
            as_extra=True,
            on_event=on_event,
        )
    return [state.id for state in strays]
