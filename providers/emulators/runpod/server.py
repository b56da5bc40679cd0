"""RunPod's REST v2 (and a little GraphQL) as a local HTTP server; v1 answers 410. Made by serving.make_server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from aiohttp import web

from providers.emulators.account import Settings
from providers.emulators.call import JSON, Answer, Call, Refused
from providers.emulators.cloud_server import CloudServer
from providers.emulators.contract import ContractName, MethodNotAllowed, NoSuchPath, load_contract
from providers.emulators.runpod import billing, catalog, graphql, objects, pods
from providers.emulators.runpod.account import RunPodAccount
from providers.emulators.runpod.pod import Pod
from providers.emulators.runpod.problem import forbidden, invalid, no_key, not_found, refuse

BODY_LIMIT = 102_400
READ_ONLY_SUFFIX = "_read_only"
# User agents that the edge in front of the service has been seen to turn away.
_UNWELCOME = ("Python-urllib", "")

Handler = Callable[[RunPodAccount, Call], Answer | Awaitable[Answer | web.StreamResponse]]


class RunPodServer(CloudServer):
    account: RunPodAccount
    base_path = "/v2"

    def __init__(self, settings: Settings) -> None:
        contract = load_contract(cast("ContractName", f"runpod-{settings.contract}"))
        super().__init__(RunPodAccount(settings), contract=contract)

    async def respond(self, call: Call) -> Answer | web.StreamResponse:
        self._pass_edge(call)
        if call.path.startswith("/v1/") or call.path == "/v1":
            return Answer(status=410, body={"error": "REST API v1 was retired; use v2", "status": 410})
        if call.path == "/v2/openapi.json":
            return Answer(status=200, body=self.contract.document)
        if call.path == "/graphql":
            return graphql.answer(self.account, call)
        if self.account.is_september and call.subject == "POST /v2/pods" and len(call.raw) > BODY_LIMIT:
            raise refuse(413, f"request body exceeds the limit of {BODY_LIMIT} bytes")
        pod = self._check_key(call)
        quotas: dict[str, int] = self.account.faults.peek("quota")
        try:
            self._check_rate(call, quotas)
            answer = await self._act(call, pod)
        except Refused as refusal:
            answer = with_headers(refusal.answer, self.account.quota.headers(call.key, quotas))
            raise Refused(answer, fault=refusal.fault, detail=refusal.detail) from None
        if isinstance(answer, web.StreamResponse):
            return answer
        return with_headers(answer, self.account.quota.headers(call.key, quotas))

    def _pass_edge(self, call: Call) -> None:
        agent = call.request.headers.get("User-Agent", "")
        is_unwelcome = self.account.faults.peek("edge_checks_agent") and any(
            agent.startswith(name) if name else agent == name for name in _UNWELCOME
        )
        is_turned = self.account.faults.take("edge_1010_html", call.subject)
        if is_unwelcome or is_turned:
            raise Refused(
                Answer(status=403, raw=b"error code: 1010", content_type="text/plain"), fault="edge_1010_html"
            )

    def _check_key(self, call: Call) -> Pod | None:
        """Whose key it is; the pod, when it is the key inside one."""
        scheme, _, key = call.request.headers.get("Authorization", "").partition(" ")
        if self.account.faults.take("empty_401", call.subject):
            raise Refused(Answer(status=401, raw=b"", content_type=JSON), fault="empty_401")
        if scheme != "Bearer" or not key:
            raise no_key()
        if key in (self.account.settings.api_key, self.account.settings.api_key + READ_ONLY_SUFFIX):
            call.key = "account" if key == self.account.settings.api_key else "read_only"
            if self.account.faults.take("key_revoked", call.subject):
                raise refuse(401, "invalid bearer token", fault="key_revoked")
            return None
        pod = self.account.pods.find_by_key(key)
        call.key = "bad" if pod is None else f"pod:{pod.id}"
        if pod is None:
            raise refuse(401, "invalid bearer token")
        return pod

    def _check_rate(self, call: Call, quotas: dict[str, int]) -> None:
        is_forced = self.account.faults.take("rate_limit_now", call.subject)
        window = self.account.quota.count(call.key, quotas)
        if is_forced or window:
            window = window or "minute"
            wait_s = 1 if is_forced else self.account.quota.reset_s(window)
            raise refuse(
                429,
                f"rate limit exceeded for the {window} window",
                headers={"Retry-After": str(wait_s)},
                fault="rate_limit_now" if is_forced else "",
            )

    async def _act(self, call: Call, pod: Pod | None) -> Answer | web.StreamResponse:
        if call.path.startswith("/v2/account/secrets") and self.account.is_september:
            self._check_rights(call, pod)
            return objects.answer_secrets(self.account, call)
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
        answer = handler(self.account, call)
        return answer if isinstance(answer, Answer) else await answer

    def _check_rights(self, call: Call, pod: Pod | None) -> None:
        if call.key == "read_only" and call.method != "GET":
            raise forbidden()
        if pod is None:
            return
        rights = self.account.faults.peek("pod_key_rights", pod.name)
        is_own = call.path in (f"/v2/pods/{pod.id}", f"/v2/pods/{pod.id}/action", f"/v2/pods/{pod.id}/logs")
        if not is_own or rights == "none" or (rights == "graphql" and call.method != "GET"):
            raise forbidden()


def with_headers(answer: Answer, headers: dict[str, str]) -> Answer:
    return msgspec.structs.replace(answer, headers={**answer.headers, **headers})


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/v2/pods"): pods.list_pods,
    ("POST", "/v2/pods"): pods.create_pod,
    ("GET", "/v2/pods/{id}"): pods.get_pod,
    ("PATCH", "/v2/pods/{id}"): pods.update_pod,
    ("DELETE", "/v2/pods/{id}"): pods.delete_pod,
    ("POST", "/v2/pods/{id}/action"): pods.act_on_pod,
    ("GET", "/v2/pods/{id}/logs"): pods.stream_logs,
    ("GET", "/v2/catalog/gpus"): catalog.list_gpus,
    ("GET", "/v2/catalog/gpus/{id}"): catalog.get_gpu,
    ("GET", "/v2/catalog/datacenters"): catalog.list_data_centers,
    ("GET", "/v2/catalog/datacenters/{id}"): catalog.get_data_center,
    ("GET", "/v2/billing/pods"): billing.list_billing,
    ("GET", "/v2/account/ssh-keys"): objects.get_keys,
    ("PUT", "/v2/account/ssh-keys"): objects.put_keys,
    ("GET", "/v2/registries"): objects.list_registries,
    ("POST", "/v2/registries"): objects.create_registry,
    ("GET", "/v2/registries/{id}"): objects.get_registry,
    ("DELETE", "/v2/registries/{id}"): objects.delete_registry,
    ("GET", "/v2/network-volumes"): objects.list_volumes,
    ("POST", "/v2/network-volumes"): objects.create_volume,
    ("GET", "/v2/network-volumes/{id}"): objects.get_volume,
    ("PATCH", "/v2/network-volumes/{id}"): objects.update_volume,
    ("DELETE", "/v2/network-volumes/{id}"): objects.delete_volume,
}
