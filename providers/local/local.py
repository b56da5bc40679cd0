"""The local cloud: machines on this computer that are real SSH servers. Constructed by the registry."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from providers.cloud import LaunchRequest, MachineState, Need, Offer
from providers.local.boot_log import read_boot_log
from providers.local.faults import Fault, find_fault
from providers.local.folder import STANDARD_PATH, MachineSpec, is_machine_id
from providers.local.launch import start_machine
from providers.local.listing import CLOUD, REGION, describe_machine, list_machines, terminate_machine
from schemas.errors import CloudError, NoCapacity, SpecError, UnclearOutcome
from schemas.files import hold_lock
from schemas.names import parse_machine_name

GPU = "cpu"
GPU_NAMES = frozenset({"", GPU, "local"})
_LOCK_TIMEOUT_S = 10.0


def find_root(environment: Mapping[str, str]) -> Path:
    """Where the local cloud keeps its machines, the same for every run and checkout of a user."""
    named = environment.get("LEASEHOLD_LOCAL_CLOUD_DIR")
    if named:
        return Path(named)
    state = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME") or Path.home(), ".local", "state")
    return Path(state, "leasehold", "local-cloud")


def make_local_cloud(environment: Mapping[str, str], *, price_usd_per_hour: float = 0.0) -> LocalCloud:
    """The local cloud as an environment describes it: its root, the PATH of its machines, and faults for tests."""
    return LocalCloud(
        find_root(environment),
        price_usd_per_hour=price_usd_per_hour,
        search_path=environment.get("PATH") or STANDARD_PATH,
        fault=environment.get("LEASEHOLD_LOCAL_FAULT", ""),
    )


class LocalCloud:
    """Machines are folders under root; capacity None is as many as asked for. See providers.cloud for the contract."""

    def __init__(
        self,
        root: Path,
        *,
        price_usd_per_hour: float = 0.0,
        capacity: int | None = None,
        search_path: str = STANDARD_PATH,
        fault: str = "",
    ) -> None:
        self._root = root.expanduser().resolve()
        self._price_usd_per_hour = price_usd_per_hour
        self._capacity = capacity
        self._search_path = search_path
        self._fault = fault

    def offers(self, need: Need) -> Sequence[Offer]:
        check_need(need)
        memory_gb = psutil.virtual_memory().total // 2**30
        if need.min_gb > memory_gb:
            return ()
        is_full = self._capacity is not None and len(list_machines(self._root)) >= self._capacity
        offer = Offer(
            cloud=CLOUD,
            gpu=GPU,
            gpu_id=GPU,
            count=need.count,
            memory_gb=memory_gb,
            region=REGION,
            price_usd_per_hour=self._price_usd_per_hour,
            available=not is_full,
        )
        return (offer,)

    def launch(self, request: LaunchRequest) -> str:
        fault = find_fault(self._fault, request.name)
        if fault.kind == "no-capacity":
            raise make_no_capacity("the fault no-capacity was asked for")
        try:
            with self._hold_place():
                machine = start_machine(self._root, self._make_spec(request, fault))
        except (OSError, subprocess.SubprocessError) as error:
            raise CloudError(
                f"cannot start a machine on this computer: {error}",
                where=str(self._root),
                fix="See that the folder can be written and that the disk and the process table are not full.",
                operation="launch",
            ) from error
        if fault.kind == "unclear":
            raise UnclearOutcome("the answer to the launch was lost", where=f"local machine {request.name}")
        return machine.id

    def find(self, name_or_id: str) -> MachineState | None:
        folder = self._root / name_or_id
        if is_machine_id(name_or_id) and folder.is_dir():
            return describe_machine(folder)
        is_name = parse_machine_name(name_or_id) is not None
        found = [state for state in list_machines(self._root) if name_or_id == (state.name if is_name else state.id)]
        return min(found, key=lambda state: state.created_at, default=None)

    def terminate(self, id: str) -> None:
        terminate_machine(self._root, id)

    def list_ours(self, prefix: str) -> Sequence[MachineState]:
        return [state for state in list_machines(self._root) if state.name.startswith(prefix)]

    def logs(self, id: str) -> str:
        return read_boot_log(self._root / id) if is_machine_id(id) else ""

    @contextlib.contextmanager
    def _hold_place(self) -> Iterator[None]:
        """With a capacity, count and start under one lock, so that launches at the same time cannot exceed it."""
        if self._capacity is None:
            yield
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with hold_lock(self._root / ".capacity.lock", exclusive=True, timeout_s=_LOCK_TIMEOUT_S):
            if len(list_machines(self._root)) >= self._capacity:
                raise make_no_capacity(f"all {self._capacity} places are taken")
            yield

    def _make_spec(self, request: LaunchRequest, fault: Fault) -> MachineSpec:
        shims = request.settings.get("shims", "")
        return MachineSpec(
            id=secrets.token_hex(4),
            name=request.name,
            public_key=request.public_key,
            host_private_key=request.host_private_key,
            expires_at=request.expires_at,
            heartbeat_timeout_s=request.heartbeat_timeout_s,
            price_usd_per_hour=request.offer.price_usd_per_hour,
            shims=tuple(filter(None, shims.split(":"))),
            search_path=self._search_path,
            fault=fault.kind,
            fault_s=fault.seconds,
        )


def check_need(need: Need) -> None:
    """Raise SpecError for a GPU, tier or region that this computer cannot mean."""
    wrong = ""
    if need.gpu not in GPU_NAMES:
        wrong = f"gpu {need.gpu!r}: this computer rents out its CPU only"
    elif need.tier:
        wrong = f"tier {need.tier!r}: the local cloud has no tiers"
    elif need.interconnect:
        wrong = f"interconnect {need.interconnect!r}: the local cloud has no GPUs to connect"
    elif need.regions and REGION not in need.regions:
        wrong = f"regions {', '.join(need.regions)}: the local cloud is in the region {REGION!r}"
    if wrong:
        raise SpecError(wrong, where="cloud local", fix="Leave that out of the candidate, or take another cloud.")


def make_no_capacity(reason: str) -> NoCapacity:
    return NoCapacity(reason, where="cloud local", fix="Terminate a machine (`./inv reap`), or take another cloud.")
