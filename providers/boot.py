"""From "has an id" to "SSH answers": waits for a machine with a deadline for each phase. Called by the Endpoint resource."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from providers.clock import Clock, OnEvent
from providers.cloud import Cloud, Endpoint, MachineState
from providers.lease.intents import record_seen
from providers.lease.lease import is_open
from providers.ssh_probe import ProbeResult, probe_ssh
from schemas.errors import CancelledError, CloudError, MachineFailed
from schemas.ssh import SshTarget, write_known_hosts

_WRONG_KEYS_UNTIL_REFUSAL = 3
_SILENCE_S = 30.0
Probe = Callable[[SshTarget], ProbeResult]


class BootLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How long each phase of a boot may take, in seconds; unseen: the cloud does not show a machine it has accepted."""

    total_s: float
    unseen_s: float = 300
    first_interval_s: float = 0.2
    last_interval_s: float = 5


class _Boot:
    """One machine's way to SSH; remembers what it waits for, so that a deadline can say it."""

    def __init__(
        self,
        run_dir: Path,
        cloud: Cloud,
        machine_id: str,
        target: SshTarget,
        limits: BootLimits,
        clock: Clock,
        on_event: OnEvent,
        probe: Probe,
    ) -> None:
        self.run_dir = run_dir
        self.on_event = on_event
        self.cloud = cloud
        self.machine_id = machine_id
        self.target = target
        self.limits = limits
        self.clock = clock
        self.probe = probe
        self.started = clock.monotonic()
        self.seen = False
        self.wrong_keys = 0
        self.waits_for = "the cloud to show the machine"
        self.silent_since: float | None = None
        self.told_silence = False

    def try_once(self) -> Endpoint | None:
        """One look at the cloud and, once there is an address, one at SSH."""
        try:
            state = self.cloud.find(self.machine_id)
        except CloudError as error:
            self._note_silence(error)
            return None
        self.silent_since = None
        if state is None:
            self._expect_to_be_seen()
            return None
        self._note_sighting(state)
        self._refuse_dead(state)
        if state.endpoint is None:
            self.waits_for = f"an address ({state.detail or state.phase})"
            return None
        return state.endpoint if self._answers(state.endpoint) else None

    def _note_silence(self, error: CloudError) -> None:
        """Say once that the cloud has not answered for a while: the boot's deadline may be far away."""
        self.waits_for = f"the cloud to answer ({error.what})"
        now = self.clock.monotonic()
        self.silent_since = now if self.silent_since is None else self.silent_since
        if now - self.silent_since >= _SILENCE_S and not self.told_silence:
            self.told_silence = True
            text = (
                f"the cloud has not answered for {_SILENCE_S:.0f} s while machine {self.machine_id} boots: {error.what}"
            )
            self.on_event("cloud_silent", text, {"id": self.machine_id})

    def _note_sighting(self, state: MachineState) -> None:
        if not self.seen:
            self.seen = True
            record_seen(self.run_dir, name=state.name, id=state.id, now=self.clock.now())

    def _expect_to_be_seen(self) -> None:
        if self.seen:
            raise MachineFailed("the machine disappeared while it booted", where=self.machine_id)
        if self.clock.monotonic() - self.started > self.limits.unseen_s:
            raise MachineFailed(
                f"the cloud accepted the machine but did not show it for {self.limits.unseen_s:.0f} s",
                where=self.machine_id,
            )

    def _refuse_dead(self, state: MachineState) -> None:
        if state.phase in ("failed", "ending"):
            ended = "has failed" if state.phase == "failed" else "is ending"
            raise MachineFailed(f"the machine {ended}: {state.detail or 'no reason given'}", where=state.id)

    def _answers(self, endpoint: Endpoint) -> bool:
        target = msgspec.structs.replace(self.target, host=endpoint.host, port=endpoint.port, user=endpoint.user)
        result = self.probe(target)
        self.waits_for = f"SSH at {endpoint.host}:{endpoint.port} ({result.detail or 'no answer'})"
        self.wrong_keys = self.wrong_keys + 1 if result.outcome == "wrong_key" else 0
        if self.wrong_keys >= _WRONG_KEYS_UNTIL_REFUSAL:
            raise MachineFailed(
                "a server with another host key answers there, so this is not the machine that we started",
                where=f"{endpoint.host}:{endpoint.port}",
                fix="Nothing was sent to it. The machine is given back; try again, or leave this offer out.",
            )
        return result.outcome == "answers"


def wait_until_ssh_answers(
    run_dir: Path,
    *,
    cloud: Cloud,
    machine_id: str,
    alias: str,
    host_key: str,
    index: int,
    limits: BootLimits,
    clock: Clock,
    on_event: OnEvent,
    probe: Probe = probe_ssh,
) -> Endpoint:
    """Wait until SSH answers with the pinned host key; raises MachineFailed with the boot log, or CancelledError.

    The boot log goes to boot-<index>.log in run_dir when it fails. Polls the lease at every step.
    """
    known_hosts = run_dir / "hostkeys" / f"{alias}.known_hosts"
    write_known_hosts(known_hosts, alias, host_key)
    target = SshTarget(
        host="", port=0, user="", key_file=str(run_dir / "id_ed25519"), known_hosts_file=str(known_hosts), alias=alias
    )
    boot = _Boot(run_dir, cloud, machine_id, target, limits, clock, on_event, probe)
    try:
        endpoint = _poll(boot)
    except MachineFailed as error:
        raise _with_boot_log(error, cloud, machine_id, run_dir / f"boot-{index}.log") from error
    seconds = clock.monotonic() - boot.started
    on_event("ssh_answers", f"machine {index} answers after {seconds:.1f} s", {"seconds": round(seconds, 2)})
    return endpoint


def _poll(boot: _Boot) -> Endpoint:
    interval_s = boot.limits.first_interval_s
    while True:
        if not is_open(boot.run_dir):
            raise CancelledError("the lease was revoked while the machine booted", where=boot.machine_id)
        endpoint = boot.try_once()
        if endpoint is not None:
            return endpoint
        if boot.clock.monotonic() - boot.started > boot.limits.total_s:
            raise MachineFailed(
                f"not ready after {boot.limits.total_s / 60:.0f} minutes: still waiting for {boot.waits_for}",
                where=boot.machine_id,
                fix="Raise limits.boot_minutes, or leave this offer out.",
            )
        boot.clock.sleep(interval_s)
        interval_s = min(interval_s * 1.3, boot.limits.last_interval_s)


def _with_boot_log(error: MachineFailed, cloud: Cloud, machine_id: str, path: Path) -> MachineFailed:
    try:
        log = cloud.logs(machine_id)
    except CloudError as unreadable:
        log = f"(the boot log could not be read: {unreadable.what})"
    path.write_text(log, encoding="utf-8")
    tail = "\n    ".join(log.splitlines()[-20:])
    words = f"{error.what}\n  Its boot log ends:\n    {tail}" if tail else error.what
    return MachineFailed(words, where=error.where, fix=error.fix)
