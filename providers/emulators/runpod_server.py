"""RunPod's REST v2 (and a little GraphQL) as a local HTTP server; v1 answers 410. Made by serving.make_server."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from aiohttp import web

from providers.emulators import runpod_account, runpod_billing, runpod_catalog, runpod_graphql, runpod_pods
from providers.emulators.call import JSON, Answer, Call, Refused
from providers.emulators.cloud_server import CloudServer, Settings
from providers.emulators.contract import ContractName, MethodNotAllowed, NoSuchPath, load_contract
from providers.emulators.faults import Faults
from providers.emulators.foreign import make_foreign_pods
from providers.emulators.knobs import RUNPOD_KNOBS
from providers.emulators.pod import Pod
from providers.emulators.pod_store import PodStore
from providers.emulators.problem import forbidden, invalid, no_key, not_found, refuse
from providers.emulators.quota import Quota
from providers.emulators.stock import runpod_stock
from providers.emulators.summary import MachineSummary

BODY_LIMIT = 102_400
READ_ONLY_SUFFIX = "_read_only"
# User agents that the edge in front of the service has been seen to turn away.
_UNWELCOME = ("Python-urllib", "")

Handler = Callable[["RunPodServer", Call], Answer | Awaitable[web.StreamResponse]]


class RunPodServer(CloudServer):
    cloud = "runpod"
    base_path = "/v2"

    def __init__(self, settings: Settings) -> None:
        faults = Faults(RUNPOD_KNOBS, seed=settings.seed)
        contract = load_contract(cast("ContractName", f"runpod-{settings.contract}"))
        super().__init__(settings, faults=faults, contract=contract)
        self.quota = Quota(self.clock)
        self.pods = PodStore(
            clock=self.clock,
            faults=faults,
            machines=self.machines,
            stock=runpod_stock(),
            api_url=lambda: f"http://127.0.0.1:{self.port}",
            seed=settings.seed,
        )
        self.account = runpod_account.Account(random.Random(settings.seed))
        make_foreign_pods(self.pods.pods, settings.foreign, self.clock.now())

    @property
    def is_september(self) -> bool:
        return self.settings.contract == "september"

    async def respond(self, call: Call) -> Answer | web.StreamResponse:
        self._pass_edge(call)
        if call.path.startswith("/v1/") or call.path == "/v1":
            return Answer(status=410, body={"error": "REST API v1 was retired; use v2", "status": 410})
        if call.path == "/v2/openapi.json":
            return Answer(status=200, body=self.contract.document)
        if call.path == "/graphql":
            return runpod_graphql.answer(self, call)
        if self.is_september and call.subject == "POST /v2/pods" and len(call.raw) > BODY_LIMIT:
            raise refuse(413, f"request body exceeds the limit of {BODY_LIMIT} bytes")
        pod = self._check_key(call)
        quotas: dict[str, int] = self.faults.peek("quota")
        try:
            self._check_rate(call, quotas)
            answer = await self._act(call, pod)
        except Refused as refusal:
            answer = with_headers(refusal.answer, self.quota.headers(call.key, quotas))
            raise Refused(answer, fault=refusal.fault, detail=refusal.detail) from None
        if isinstance(answer, web.StreamResponse):
            return answer
        return with_headers(answer, self.quota.headers(call.key, quotas))

    def summaries(self) -> list[MachineSummary]:
        return [self._summarize(pod) for pod in self.pods.pods.values()]

    def strike(self, machine_id: str, event: str) -> None:
        pod = self.pods.pods[machine_id]
        kind, _, value = event.partition(":")
        if kind == "nvidia_smi":
            self.machines.set_nvidia_smi(machine_id, value)
            return
        actions: dict[str, Callable[[Pod], None]] = {
            "exit": self.pods.exit,
            "error": self.pods.break_down,
            "delete": self.pods.delete,
        }
        actions[kind](pod)

    def set_stock(self, kind: str, region: str, units: int, tier: str) -> None:
        self.pods.stock.set(kind, tier or "SECURE", region, units)

    def watch_machines(self) -> None:
        self.pods.watch()

    def release_ports(self) -> None:
        self.pods.release_ports()

    def _pass_edge(self, call: Call) -> None:
        agent = call.request.headers.get("User-Agent", "")
        is_unwelcome = self.faults.peek("edge_checks_agent") and any(
            agent.startswith(name) if name else agent == name for name in _UNWELCOME
        )
        is_turned = self.faults.take("edge_1010_html", call.subject)
        if is_unwelcome or is_turned:
            raise Refused(
                Answer(status=403, raw=b"error code: 1010", content_type="text/plain"), fault="edge_1010_html"
            )

    def _check_key(self, call: Call) -> Pod | None:
        """Whose key it is; the pod, when it is the key inside one."""
        scheme, _, key = call.request.headers.get("Authorization", "").partition(" ")
        if self.faults.take("empty_401", call.subject):
            raise Refused(Answer(status=401, raw=b"", content_type=JSON), fault="empty_401")
        if scheme != "Bearer" or not key:
            raise no_key()
        if key in (self.settings.api_key, self.settings.api_key + READ_ONLY_SUFFIX):
            call.key = "account" if key == self.settings.api_key else "read_only"
            if self.faults.take("key_revoked", call.subject):
                raise refuse(401, "invalid bearer token", fault="key_revoked")
            return None
        pod = self.pods.find_by_key(key)
        call.key = "bad" if pod is None else f"pod:{pod.id}"
        if pod is None:
            raise refuse(401, "invalid bearer token")
        return pod

    def _check_rate(self, call: Call, quotas: dict[str, int]) -> None:
        is_forced = self.faults.take("rate_limit_now", call.subject)
        window = self.quota.count(call.key, quotas)
        if is_forced or window:
            window = window or "minute"
            wait_s = 1 if is_forced else self.quota.reset_s(window)
            raise refuse(
                429,
                f"rate limit exceeded for the {window} window",
                headers={"Retry-After": str(wait_s)},
                fault="rate_limit_now" if is_forced else "",
            )

    async def _act(self, call: Call, pod: Pod | None) -> Answer | web.StreamResponse:
        if call.path.startswith("/v2/account/secrets") and self.is_september:
            self._check_rights(call, pod)
            return runpod_account.answer_secrets(self, call)
        try:
            call.operation = self.contract.find_operation(call.method, call.path)
        except NoSuchPath:
            raise not_found("resource not found") from None
        except MethodNotAllowed as error:
            headers = {"Allow": ", ".join(error.allowed)}
            raise refuse(405, "The requested method is not allowed for this path.", headers=headers) from None
        self._check_rights(call, pod)
        problems = self.contract.query_problems(call.operation, call.query)
        if call.raw and isinstance(call.body, str) and call.operation.spec.get("requestBody"):
            raise refuse(400, "request body is not valid JSON")
        problems += self.contract.body_problems(call.operation, call.body)
        if problems:
            raise invalid(problems)
        handler = ROUTES.get((call.operation.method, call.operation.template))
        if handler is None:
            raise refuse(501, "the emulator does not serve this route")
        answer = handler(self, call)
        return answer if isinstance(answer, Answer) else await answer

    def _check_rights(self, call: Call, pod: Pod | None) -> None:
        if call.key == "read_only" and call.method != "GET":
            raise forbidden()
        if pod is None:
            return
        rights = self.faults.peek("pod_key_rights", pod.name)
        is_own = call.path in (f"/v2/pods/{pod.id}", f"/v2/pods/{pod.id}/action", f"/v2/pods/{pod.id}/logs")
        if not is_own or rights == "none" or (rights == "graphql" and call.method != "GET"):
            raise forbidden()

    def _summarize(self, pod: Pod) -> MachineSummary:
        now = self.clock.now()
        return MachineSummary(
            id=pod.id,
            name=pod.name,
            cloud=self.cloud,
            status=pod.status,
            kind=pod.gpu_id or "cpu",
            region=pod.region or "",
            price_usd_per_hour=pod.price_usd_per_hour,
            cost_usd=pod.meter.usd(now),
            billed_s=pod.meter.billed_s(now),
            created_at=pod.created_at,
            ended_at=pod.gone_at,
            is_foreign=pod.is_foreign,
            was_touched=pod.was_touched,
            ssh_port=pod.ports[22].number if 22 in pod.ports else 0,
            folder=str(self.machines.root / pod.id) if self.machines.is_real and not pod.is_foreign else "",
            made_by_request=pod.made_by_request,
        )


def with_headers(answer: Answer, headers: dict[str, str]) -> Answer:
    return msgspec.structs.replace(answer, headers={**answer.headers, **headers})


ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "/v2/pods"): runpod_pods.list_pods,
    ("POST", "/v2/pods"): runpod_pods.create_pod,
    ("GET", "/v2/pods/{id}"): runpod_pods.get_pod,
    ("PATCH", "/v2/pods/{id}"): runpod_pods.update_pod,
    ("DELETE", "/v2/pods/{id}"): runpod_pods.delete_pod,
    ("POST", "/v2/pods/{id}/action"): runpod_pods.act_on_pod,
    ("GET", "/v2/pods/{id}/logs"): runpod_pods.stream_logs,
    ("GET", "/v2/catalog/gpus"): runpod_catalog.list_gpus,
    ("GET", "/v2/catalog/gpus/{id}"): runpod_catalog.get_gpu,
    ("GET", "/v2/catalog/datacenters"): runpod_catalog.list_data_centers,
    ("GET", "/v2/catalog/datacenters/{id}"): runpod_catalog.get_data_center,
    ("GET", "/v2/billing/pods"): runpod_billing.list_billing,
    ("GET", "/v2/account/ssh-keys"): runpod_account.get_keys,
    ("PUT", "/v2/account/ssh-keys"): runpod_account.put_keys,
    ("GET", "/v2/registries"): runpod_account.list_registries,
    ("POST", "/v2/registries"): runpod_account.create_registry,
    ("GET", "/v2/registries/{id}"): runpod_account.get_registry,
    ("DELETE", "/v2/registries/{id}"): runpod_account.delete_registry,
    ("GET", "/v2/network-volumes"): runpod_account.list_volumes,
    ("POST", "/v2/network-volumes"): runpod_account.create_volume,
    ("GET", "/v2/network-volumes/{id}"): runpod_account.get_volume,
    ("PATCH", "/v2/network-volumes/{id}"): runpod_account.update_volume,
    ("DELETE", "/v2/network-volumes/{id}"): runpod_account.delete_volume,
}
