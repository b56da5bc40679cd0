"""The sweep of one cloud, a look at a time: end every machine of the lease, then show two listings without one.

Driven by sweep.py, which gives every cloud its turn so that one that is down does not keep the others' machines alive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from providers.clock import Clock, OnEvent, Waits
from providers.cloud import Cloud, KeyedCloud, MachineState
from providers.lease.intents import CreateHistory
from providers.lease.proof import CloudProof, LeftMachine, SkippedCloud, TerminatedMachine
from providers.lease.termination import ASK_AGAIN_S
from schemas.errors import CredentialError, LeaseholdError, RateLimited, RetiredApi

# A key that is refused so often in a row will not work before somebody acts.
_REFUSALS = 3


@dataclasses.dataclass
class _Seen:
    state: MachineState
    asked_at: float = 0.0
    asked_since: float | None = None
    gone_at: float | None = None


class CloudSweep:
    """One cloud's part of a release. Done when it has a proof, was skipped, or failed for good; step() never raises an
    error of the cloud, it keeps it as `trouble`."""

    def __init__(
        self,
        name: str,
        cloud: Cloud,
        *,
        prefix: str,
        histories: Sequence[CreateHistory],
        is_log_damaged: bool,
        revoked_at: float,
        clock: Clock,
        settle_s: float,
        waits: Waits,
        on_event: OnEvent,
    ) -> None:
        self.name = name
        self.proof: CloudProof | None = None
        self.skipped: SkippedCloud | None = None
        self.has_failed = False
        self.trouble = ""
        self.next_look = clock.monotonic()
        self._cloud = cloud
        self._prefix = prefix
        self._histories = tuple(histories)
        self._is_log_damaged = is_log_damaged
        self._revoked_at = revoked_at
        self._window_s = waits.request_timeout_s + settle_s
        self._clock = clock
        self._poll_s = waits.poll_s
        self._on_event = on_event
        # Waits run on the monotonic clock, so that a wall clock that is set meanwhile cannot cut them short.
        self._began_at, self._began = clock.now(), clock.monotonic()
        self._seen: dict[str, _Seen] = {}
        self._asked_unseen: set[str] = set()
        self._listings: list[float] = []
        self._keys_removed: list[str] = []
        self._refusals = 0

    @property
    def is_done(self) -> bool:
        return self.proof is not None or self.skipped is not None or self.has_failed

    @property
    def wait_s(self) -> float:
        """Seconds from the sweep's begin until a listing counts."""
        return min(max(self._settles_at() - self._began_at, 0.0), self._window_s)

    @property
    def left(self) -> tuple[LeftMachine, ...]:
        """What may be alive: machines that were seen and are not gone, and creates of which nothing is known."""
        seen = [each.state for each in self._seen.values() if each.gone_at is None]
        left = [self._make_left(state.id, state.name, state.price_usd_per_hour) for state in seen]
        for history in self._histories:
            unseen = [id for id in history.live_ids if id not in self._seen]
            left += [self._make_left(id, history.name, history.price_usd_per_hour) for id in unseen]
            if history.is_unresolved and not history.ids and history.name not in {state.name for state in seen}:
                left.append(self._make_left("", history.name, history.price_usd_per_hour))
        return tuple(left)

    def step(self) -> None:
        """Look once, and act on what is there."""
        self.next_look = self._clock.monotonic() + self._poll_s
        try:
            self._look()
        except (CredentialError, RetiredApi) as error:
            self._refuse(error)
        except RateLimited as error:
            # It has not looked, which says nothing against the look before: else a low quota would never let two follow.
            self.trouble = str(error)
            self.next_look = self._clock.monotonic() + max(self._poll_s, error.retry_after_s)
        except Exception as error:
            # Whatever it is: machines in the other clouds cost money, and this one stays unproven.
            self._listings.clear()
            self.trouble = str(error) or type(error).__name__
        else:
            self._refusals = 0

    def _look(self) -> None:
        asked_at, asked = self._clock.now(), self._clock.monotonic()
        alive = self._find_alive()
        self._note(alive)
        if alive:
            self._listings.clear()
        for state in alive.values():
            self._terminate(self._seen[state.id])
        self._terminate_unseen()
        counts = asked - self._began >= self.wait_s
        if alive or not counts:
            self._listings.clear()
            if not alive:
                self.trouble = "the settle window has not passed"
                self.next_look = min(self.next_look, self._began + self.wait_s)
            return
        self._listings = [*self._listings, asked_at][-2:]
        if len(self._listings) == 2 and self._remove_keys():
            self._prove(self._listings[0], self._listings[1])

    def _find_alive(self) -> dict[str, MachineState]:
        """The listing, and every machine known by id that the listing leaves out."""
        listed = self._cloud.list_ours(self._prefix)
        alive = {state.id: state for state in listed if state.name.startswith(self._prefix)}
        known = [id for history in self._histories for id in history.live_ids]
        for id in dict.fromkeys([*known, *self._seen]):
            state = None if id in alive else self._cloud.find(id)
            if state is not None:
                alive[id] = state
        return alive

    def _note(self, alive: dict[str, MachineState]) -> None:
        for id, state in alive.items():
            seen = self._seen.setdefault(id, _Seen(state))
            seen.state, seen.gone_at = state, None
        for id, seen in self._seen.items():
            if id not in alive and seen.gone_at is None:
                seen.gone_at = self._clock.now()
                self._on_event("machine_gone", f"{self.name} machine {id} is gone", {"cloud": self.name, "id": id})

    def _terminate(self, seen: _Seen) -> None:
        now = self._clock.monotonic()
        if seen.asked_since is not None and now - seen.asked_since < ASK_AGAIN_S:
            return
        seen.asked_since = None
        seen.asked_at = seen.asked_at or self._clock.now()
        id = seen.state.id
        self._on_event(
            "machine_terminated",
            f"asking {self.name} to end machine {id}",
            {"cloud": self.name, "id": id, "name": seen.state.name},
        )
        self.trouble = f"machine {id} is still listed"
        try:
            self._cloud.terminate(id)
        except (CredentialError, RateLimited, RetiredApi):
            raise
        except LeaseholdError as error:
            # The next look tells whether it was done all the same; the other machines must not wait for it.
            self.trouble = str(error)
        else:
            seen.asked_since = now

    def _terminate_unseen(self) -> None:
        """End what was made a moment ago and is not listed yet: a delete by id may reach it before a listing shows it."""
        for history in self._histories:
            for id in history.live_ids:
                if id in self._seen or id in self._asked_unseen:
                    continue
                try:
                    self._cloud.terminate(id)
                    self._asked_unseen.add(id)
                except (CredentialError, RateLimited, RetiredApi):
                    raise
                except LeaseholdError as error:
                    # A cloud may answer an id that it does not know with an error; the listings decide.
                    self.trouble = str(error)

    def _settles_at(self) -> float:
        """When the last create that may have been under way can no longer bring a machine to light."""
        if self._is_log_damaged:
            return self._revoked_at + self._window_s
        return max((self._settles_for(history) for history in self._histories), default=0.0)

    def _settles_for(self, history: CreateHistory) -> float:
        if history.is_unresolved:
            return self._revoked_at + self._window_s
        is_seen = all(id in self._seen or id in history.seen_ids for id in history.live_ids)
        if not history.unclear and is_seen:
            return 0.0
        # An unclear create that was adopted may have made a twin; one that was answered may not be listed yet.
        return min(history.sent_at, self._revoked_at) + self._window_s

    def _remove_keys(self) -> bool:
        if not isinstance(self._cloud, KeyedCloud):
            return True
        for name in self._list_keys(self._cloud):
            self.trouble = f"the SSH key {name} is still in the account"
            self._cloud.remove_key(name)
            self._keys_removed.append(name)
            self._on_event("key_removed", f"removed SSH key {name} from {self.name}", {"cloud": self.name, "key": name})
        return not self._list_keys(self._cloud)

    def _list_keys(self, cloud: KeyedCloud) -> list[str]:
        return [name for name in cloud.list_keys(self._prefix) if name.startswith(self._prefix)]

    def _prove(self, first: float, second: float) -> None:
        terminated = [
            TerminatedMachine(
                id=id,
                name=seen.state.name,
                price_usd_per_hour=seen.state.price_usd_per_hour,
                asked_at=seen.asked_at,
                gone_at=seen.gone_at or first,
            )
            for id, seen in self._seen.items()
        ]
        self.proof = CloudProof(
            cloud=self.name,
            listings=(first, second),
            counted_from=self._began_at + self.wait_s,
            terminated=tuple(terminated),
            keys_removed=tuple(dict.fromkeys(self._keys_removed)),
        )
        self._on_event("cloud_proven", f"{self.name}: two listings show no machine of this lease", {"cloud": self.name})

    def _refuse(self, error: LeaseholdError) -> None:
        self._listings.clear()
        self.trouble = str(error)
        if not self._histories and not self._is_log_damaged and isinstance(error, CredentialError):
            self.skipped = SkippedCloud(cloud=self.name, reason=error.what)
            self._on_event("cloud_skipped", f"{self.name}: {error.what}; no create was ever sent to it", {})
            return
        self._refusals += 1
        self.has_failed = self._refusals >= _REFUSALS

    def _make_left(self, id: str, name: str, price: float) -> LeftMachine:
        known = {history.name: history.price_usd_per_hour for history in self._histories}
        return LeftMachine(cloud=self.name, id=id, name=name, price_usd_per_hour=price or known.get(name, 0.0))
