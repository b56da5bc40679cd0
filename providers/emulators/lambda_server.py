"""Lambda Cloud's API v1 as a local HTTP server. Made by serving.make_server."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from aiohttp import web

from providers.emulators import lambda_account, lambda_instances
from providers.emulators.call import Answer, Call
from providers.emulators.cloud_server import CloudServer, Settings
from providers.emulators.contract import MethodNotAllowed, NoSuchPath, load_contract
from providers.emulators.faults import Faults
from providers.emulators.foreign import make_foreign_instances
from providers.emulators.instance import Instance
from providers.emulators.instance_store import InstanceStore
from providers.emulators.knobs import LAMBDA_KNOBS
from providers.emulators.lambda_error import fail
from providers.emulators.pace import Pace
from providers.emulators.stock import lambda_stock
from providers.emulators.summary import MachineSummary

_LAUNCH = "/api/v1/instance-operations/launch"


class LambdaServer(CloudServer):
    cloud = "lambda"
    base_path = "/api/v1"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, faults=Faults(LAMBDA_KNOBS, seed=settings.seed), contract=load_contract("lambda"))
        self.pace = Pace(self.clock, self.faults)
        self.account = lambda_account.Account()
        self.instances = InstanceStore(
            clock=self.clock,
            faults=self.faults,
            machines=self.machines,
            stock=lambda_stock(),
            api_url=lambda: f"http://127.0.0.1:{self.port}",
            seed=settings.seed,
        )
        make_foreign_instances(self.instances.instances, settings.foreign, self.clock.now())

    async def respond(self, call: Call) -> Answer | web.StreamResponse:
        self._check_key(call)
        self.pace.check(call.subject, is_launch=call.path == _LAUNCH and call.method == "POST")
        if self.faults.take("account_inactive", call.subject):
            raise fail("global/account-inactive", fault="account_inactive")
        try:
            call.operation = self.contract.find_operation(call.method, call.path)
        except (NoSuchPath, MethodNotAllowed):
            raise fail("global/not-found") from None
        problems = self.contract.query_problems(call.operation, call.query)
        problems += self.contract.body_problems(call.operation, call.body)
        if problems:
            raise fail("global/invalid-parameters", "Invalid request data: " + "; ".join(problems))
        handler = ROUTES.get((call.operation.method, call.operation.template))
        if handler is None:
            raise fail("global/internal-error", "The emulator does not serve this route.", status=501)
        answer = handler(self, call)
        return answer if isinstance(answer, Answer) else await answer

    def summaries(self) -> list[MachineSummary]:
        return [self._summarize(instance) for instance in self.instances.instances.values()]

    def strike(self, machine_id: str, event: str) -> None:
        instance = self.instances.instances[machine_id]
        kind, _, value = event.partition(":")
        if kind == "nvidia_smi":
            self.machines.set_nvidia_smi(machine_id, value)
            return
        actions: dict[str, Callable[[Instance], None]] = {
            "unhealthy": self.instances.set_unhealthy,
            "active": self.instances.set_active,
            "preempted": self.instances.preempt,
            "delete": self.instances.terminate,
        }
        actions[kind](instance)

    def set_stock(self, kind: str, region: str, units: int, tier: str) -> None:
        self.instances.stock.set(kind, "", region, units)

    def watch_machines(self) -> None:
        self.instances.watch()

    def release_ports(self) -> None:
        self.instances.release_ports()

    def _check_key(self, call: Call) -> None:
        header = call.request.headers.get("Authorization", "")
        key = read_key(header)
        if not key:
            raise fail("global/invalid-api-key", "No API key was provided.")
        call.key = "account" if key == self.settings.api_key else "bad"
        is_revoked = call.key == "account" and self.faults.take("key_revoked", call.subject)
        if call.key == "bad" or is_revoked:
            raise fail("global/invalid-api-key", fault="key_revoked" if is_revoked else "")

    def _summarize(self, instance: Instance) -> MachineSummary:
        now = self.clock.now()
        return MachineSummary(
            id=instance.id,
            name=instance.name or "",
            cloud=self.cloud,
            status=instance.status,
            kind=instance.kind["name"],
            region=instance.region["name"],
            price_usd_per_hour=instance.price_usd_per_hour,
            cost_usd=instance.meter.usd(now),
            billed_s=instance.meter.billed_s(now),
            created_at=instance.created_at,
            ended_at=instance.terminated_at,
            is_foreign=instance.is_foreign,
            was_touched=instance.was_touched,
            ssh_port=instance.port.number if instance.port is not None else 0,
            folder=str(self.machines.root / instance.id) if self.machines.is_real and not instance.is_foreign else "",
            made_by_request=instance.made_by_request,
        )


def read_key(header: str) -> str:
    """The key of `Bearer KEY`, or of Basic with the key as the user name."""
    scheme, _, value = header.partition(" ")
    if scheme == "Bearer":
        return value
    if scheme != "Basic":
        return ""
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""


ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "/api/v1/instances"): lambda_instances.list_instances,
    ("GET", "/api/v1/instances/{id}"): lambda_instances.get_instance,
    ("POST", "/api/v1/instances/{id}"): lambda_instances.rename_instance,
    ("GET", "/api/v1/instance-types"): lambda_instances.list_types,
    ("POST", _LAUNCH): lambda_instances.launch,
    ("POST", "/api/v1/instance-operations/restart"): lambda_instances.restart,
    ("POST", "/api/v1/instance-operations/terminate"): lambda_instances.terminate,
    ("GET", "/api/v1/ssh-keys"): lambda_account.list_keys,
    ("POST", "/api/v1/ssh-keys"): lambda_account.add_key,
    ("DELETE", "/api/v1/ssh-keys/{id}"): lambda_account.delete_key,
    ("GET", "/api/v1/file-systems"): lambda_account.list_file_systems,
    ("POST", "/api/v1/filesystems"): lambda_account.create_file_system,
    ("DELETE", "/api/v1/filesystems/{id}"): lambda_account.delete_file_system,
    ("GET", "/api/v1/regions"): lambda_account.list_regions,
    ("GET", "/api/v1/images"): lambda_account.list_images,
    ("GET", "/api/v1/firewall-rules"): lambda_account.list_firewall_rules,
}
