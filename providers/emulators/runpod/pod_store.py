"""All pods of an emulated RunPod account, and how each goes from a create to its end on the cloud's clock. Called by the routes."""

from __future__ import annotations

import random
import re
import shlex
import string
from collections.abc import Callable, Mapping
from typing import Any

from providers.emulators.account import Account
from providers.emulators.machines.machine_file import MachineFile
from providers.emulators.machines.machines import LIFETIME_S, MachinePlan
from providers.emulators.machines.ports import PublicPort
from providers.emulators.machines.shim_folder import make_guard
from providers.emulators.runpod.pod import Pod, find_image, make_argv
from providers.emulators.runpod.pod_view import find_gpu, list_ports
from providers.emulators.stock import Stock
from providers.keys import make_key_pair
from providers.local.folder import MachineSpec

_ID_LETTERS = string.ascii_lowercase + string.digits
_SECRET = re.compile(r"\{\{ *RUNPOD_SECRET_([\w.\-/]+) *\}\}")
_DISK_MONTH_H = 730.0
_MAX_LOG_LINES = 5000
# Mode A: where the two earlier statuses end, as parts of the time until SSH.
_PROVISIONED_AT, _RUNNING_AT = 0.3, 0.6
# Machine knobs are read when a pod is made, so that a count means "the next N pods".
_MACHINE_KNOBS = ("nvidia_smi", "engine_crash", "apt_get_fails")


class PodStore:
    """Newest last. A pod that is gone stays here for the tests, and is shown to nobody."""

    def __init__(self, account: Account, stock: Stock) -> None:
        self.pods: dict[str, Pod] = {}
        self.stock = stock
        self.secrets: dict[str, str] = {}
        self._account = account
        self._clock = account.clock
        self._faults = account.faults
        self._machines = account.machines
        self._random = random.Random(account.settings.seed)
        # Every real machine needs some host key; a pod that pins its own does not use this one.
        self._spare_host_key = make_key_pair()

    def find(self, pod_id: str) -> Pod | None:
        pod = self.pods.get(pod_id)
        return pod if pod is not None and pod.is_listed(self._clock.now()) else None

    def find_by_key(self, key: str) -> Pod | None:
        return next((pod for pod in self.pods.values() if pod.key == key and not pod.is_gone), None)

    def list_at(self, moment: float) -> list[Pod]:
        """Newest first, as listings of that moment show them."""
        return [pod for pod in reversed(self.pods.values()) if pod.is_listed(moment)]

    def create(self, body: dict[str, Any], *, region: str, price_usd_per_hour: float, request: int) -> Pod:
        """Make a pod of a body that has been found good; its stock has been taken by the caller."""
        pod = self._make_pod(body, region, price_usd_per_hour, request)
        self.pods[pod.id] = pod
        now = self._clock.now()
        item = "gpu" if pod.cpu is None else "cpu"
        pod.meter.start(item, price_usd_per_hour, now)  # type: ignore[arg-type]
        disk_usd = float(self._faults.take("disk_usd_per_gb_month") or 0)
        pod.meter.start("disk", disk_usd * float(body.get("disk", 0)) / _DISK_MONTH_H, now)
        for inside in list_ports(pod.config, "tcp"):
            pod.ports[inside] = PublicPort()
        self.boot(pod)
        return pod

    def boot(self, pod: Pod) -> None:
        """Plan everything that will happen to the pod from now on."""
        pod.boot += 1
        now = self._clock.now()
        self._note(pod, "system", f"create container {pod.config.get('image', '')}")
        if self._faults.take("stuck_provisioning", pod.name):
            pod.status, pod.ssh_at = "PROVISIONING", None
            return
        boot_s = self._faults.draw_s("ssh_after_s", pod.name)
        pod.ssh_at = None if self._faults.take("ssh_never", pod.name) else now + boot_s
        if self._faults.take("mode", pod.name) == "A":
            pod.status = "PROVISIONING"
            self._later(pod, boot_s * _PROVISIONED_AT, lambda: self._start_container(pod, "STARTING"))
            self._later(pod, boot_s * _RUNNING_AT, lambda: self._set_status(pod, "RUNNING"))
        else:
            self._start_container(pod, "RUNNING")
        exits_after_s = self._faults.take("exits_after_s", pod.name)
        if exits_after_s is not None:
            self._later(pod, float(exits_after_s), lambda: self.exit(pod))
        error_after_s = self._faults.take("error_after_s", pod.name)
        if error_after_s is not None:
            self._later(pod, float(error_after_s), lambda: self.break_down(pod))

    def exit(self, pod: Pod) -> None:
        """The container has ended: no GPU any more, the disk stays and is billed."""
        if pod.status in ("EXITED", "TERMINATED"):
            return
        self.collect_log(pod)
        self._note(pod, "system", "container exited")
        self._halt(pod, "EXITED")
        now = self._clock.now()
        pod.meter.stop("gpu", now)
        pod.meter.stop("cpu", now)

    def break_down(self, pod: Pod) -> None:
        """ERROR: it will not come back, and still costs money."""
        if pod.status != "TERMINATED":
            self.collect_log(pod)
            self._halt(pod, "ERROR")

    def resume(self, pod: Pod) -> None:
        """Start again after a stop, with new public ports."""
        for inside, port in list(pod.ports.items()):
            fresh = PublicPort()
            port.release()
            pod.ports[inside] = fresh
        item = "gpu" if pod.cpu is None else "cpu"
        pod.meter.start(item, pod.price_usd_per_hour, self._clock.now())  # type: ignore[arg-type]
        self.boot(pod)

    def delete(self, pod: Pod) -> None:
        """Terminate; what is shown of it afterwards is up to the knobs."""
        if pod.deleted_at is not None:
            return
        now = self._clock.now()
        pod.deleted_at = now
        lag_s = float(self._faults.take("delete_lag_s", pod.name) or 0)
        if lag_s:
            self._clock.call_at(now + lag_s, lambda: self._remove(pod))
        else:
            self._remove(pod)

    def release_ports(self) -> None:
        """At the emulator's end."""
        for pod in self.pods.values():
            for port in pod.ports.values():
                port.release()

    def collect_log(self, pod: Pod) -> None:
        for line in self._machines.read_new_log(pod.id).splitlines():
            self._note(pod, "container", line)

    def watch(self) -> None:
        """Notice pods whose first process has ended by itself."""
        for pod in self.pods.values():
            if not pod.is_gone and not pod.is_foreign and pod.status in ("STARTING", "RUNNING"):
                self.collect_log(pod)
                if self._machines.has_ended(pod.id):
                    self.exit(pod)

    def _make_pod(self, body: dict[str, Any], region: str, price: float, request: int) -> Pod:
        gpu = body.get("gpu") or {}
        now = self._clock.now()
        name = str(body["name"])
        visible_after_s = float(self._faults.take("create_visible_after_s", name) or 0)
        return Pod(
            id="".join(self._random.choices(_ID_LETTERS, k=14)),
            number=len(self.pods) + 1,
            config={key: value for key, value in body.items() if key not in ("gpu", "cpu", "cloud", "dataCenterIds")},
            cloud=str(body.get("cloud", "SECURE")),
            gpu_id=str(gpu.get("id", "")),
            gpu_count=int(gpu.get("count", 0)),
            held_gpus=int(gpu.get("count", 0)),
            cpu=body.get("cpu"),
            region=region,
            price_usd_per_hour=round(price, 4),
            created_at=now,
            key="rpa_pod_" + "".join(self._random.choices(_ID_LETTERS, k=24)),
            made_by_request=request,
            visible_at=now + visible_after_s,
            faults={knob: self._faults.take(knob, name) for knob in _MACHINE_KNOBS},
        )

    def _start_container(self, pod: Pod, status: Any) -> None:
        pod.status = status
        pod.started_at = self._clock.now()
        self._note(pod, "system", "start container")
        self._machines.start_soon(self._make_plan(pod))

    def _make_plan(self, pod: Pod) -> MachinePlan:
        kind = find_gpu(pod.gpu_id)
        shims = self._machines.shim_root / "runpod"
        file = MachineFile(
            cloud="runpod",
            id=pod.id,
            api_url=self._account.url,
            gpu_name=pod.gpu_id,
            gpu_count=pod.gpu_count,
            gpu_memory_mib=int(kind.get("memory", 0)) * 1024,
            public_ports={inside: port.number for inside, port in pod.ports.items()},
            shim_root=str(self._machines.shim_root),
            **{name: value for name, value in pod.faults.items() if value},
        )
        spec = MachineSpec(
            id=pod.id,
            name=pod.name,
            public_key="",
            host_private_key=self._spare_host_key.private,
            expires_at=int(self._clock.now() + LIFETIME_S),
            port=pod.ports[22].number if 22 in pod.ports else 0,
            shims=(str(shims),),
            machine_env=make_pod_environment(pod, self.secrets),
            start_script=make_guard(shims) + make_start_script(pod.config),
        )
        return MachinePlan(spec=spec, file=file, has_sshd=bool(find_image(pod.config.get("image", ""))["has_sshd"]))

    def _halt(self, pod: Pod, status: Any) -> None:
        pod.boot += 1
        pod.status, pod.ssh_at = status, None
        self._machines.end_soon(pod.id)

    def _remove(self, pod: Pod) -> None:
        now = self._clock.now()
        pod.boot += 1
        pod.status, pod.gone_at, pod.ssh_at = "TERMINATED", now, None
        pod.hidden_at = now + float(self._faults.take("terminated_shown_s", pod.name) or 0)
        pod.meter.stop_all(now)
        if pod.gpu_id and pod.region and not pod.is_foreign:
            self.stock.give_back(pod.gpu_id, pod.cloud, pod.region, pod.held_gpus)
        for port in pod.ports.values():
            port.release()
        self._machines.end_soon(pod.id)

    def _set_status(self, pod: Pod, status: Any) -> None:
        pod.status = status

    def _later(self, pod: Pod, after_s: float, action: Callable[[], None]) -> None:
        """Do it then, unless the pod was stopped, started or deleted in between."""
        boot = pod.boot
        self._clock.call_at(self._clock.now() + after_s, lambda: action() if pod.boot == boot else None)

    def _note(self, pod: Pod, source: str, line: str) -> None:
        pod.log.append((self._clock.now(), source, line))
        del pod.log[:-_MAX_LOG_LINES]


def make_pod_environment(pod: Pod, secrets: Mapping[str, str]) -> dict[str, str]:
    """What the container's first process sees beside what every process of a machine sees; account secrets are filled in."""
    own = {
        "RUNPOD_POD_ID": pod.id,
        "RUNPOD_API_KEY": pod.key,
        "RUNPOD_DC_ID": pod.region or "",
        "RUNPOD_POD_HOSTNAME": f"{pod.id}-64411eb2",
        "RUNPOD_GPU_COUNT": str(pod.gpu_count),
        "RUNPOD_CPU_COUNT": str(find_gpu(pod.gpu_id).get("vcpusPerGpu", 8) * max(1, pod.gpu_count)),
        "RUNPOD_PUBLIC_IP": "127.0.0.1",
    }
    for inside, port in pod.ports.items():
        own[f"RUNPOD_TCP_PORT_{inside}"] = str(port.number)
    given = {
        name: _SECRET.sub(lambda match: secrets.get(match[1], match[0]), value)
        for name, value in pod.config.get("env", {}).items()
    }
    return given | own


def make_start_script(config: dict[str, Any]) -> str:
    """Shell text that becomes the container's first process."""
    argv = make_argv(config)
    if argv == ["/start.sh"]:
        return OFFICIAL_START
    return f"exec {shlex.join(argv)}" if argv else "exit 0"


# What the official images do at their start, as far as SSH goes.
OFFICIAL_START = """
mkdir -p "$HOME/.ssh" && chmod 700 "$HOME/.ssh"
[ -n "$PUBLIC_KEY" ] && printf '%s\\n' "$PUBLIC_KEY" >>"$HOME/.ssh/authorized_keys"
chmod 600 "$HOME/.ssh/authorized_keys"
exec sshd -D -h "$LEASEHOLD_MACHINE_FOLDER/host_key"
"""
