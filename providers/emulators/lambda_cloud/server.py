"""Lambda Cloud's API v1 as a local HTTP server. Made by serving.make_server."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable

from aiohttp import web

from providers.emulators.account import Settings
from providers.emulators.call import Answer, Call
from providers.emulators.cloud_server import CloudServer
from providers.emulators.contract import MethodNotAllowed, NoSuchPath, load_contract
from providers.emulators.lambda_cloud import instances, objects
from providers.emulators.lambda_cloud.account import LambdaAccount
from providers.emulators.lambda_cloud.error import fail
from providers.emulators.lambda_cloud.pace import Pace

_LAUNCH = "/api/v1/instance-operations/launch"

Handler = Callable[[LambdaAccount, Call], Answer | Awaitable[Answer | web.StreamResponse]]


class LambdaServer(CloudServer):
    account: LambdaAccount
    base_path = "/api/v1"

    def __init__(self, settings: Settings) -> None:
        account = LambdaAccount(settings)
        super().__init__(account, contract=load_contract("lambda"))
        self.pace = Pace(account.clock, account.faults)

    async def respond(self, call: Call) -> Answer | web.StreamResponse:
        self._check_key(call)
        self.pace.check(call.subject, is_launch=call.path == _LAUNCH and call.method == "POST")
        if self.account.faults.take("account_inactive", call.subject):
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
        answer = handler(self.account, call)
        return answer if isinstance(answer, Answer) else await answer

    def _check_key(self, call: Call) -> None:
        header = call.request.headers.get("Authorization", "")
        key = read_key(header)
        if not key:
            raise fail("global/invalid-api-key", "No API key was provided.")
        call.key = "account" if key == self.account.settings.api_key else "bad"
        is_revoked = call.key == "account" and self.account.faults.take("key_revoked", call.subject)
        if call.key == "bad" or is_revoked:
            raise fail("global/invalid-api-key", fault="key_revoked" if is_revoked else "")


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


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/api/v1/instances"): instances.list_instances,
    ("GET", "/api/v1/instances/{id}"): instances.get_instance,
    ("POST", "/api/v1/instances/{id}"): instances.rename_instance,
    ("GET", "/api/v1/instance-types"): instances.list_types,
    ("POST", _LAUNCH): instances.launch,
    ("POST", "/api/v1/instance-operations/restart"): instances.restart,
    ("POST", "/api/v1/instance-operations/terminate"): instances.terminate,
    ("GET", "/api/v1/ssh-keys"): objects.list_keys,
    ("POST", "/api/v1/ssh-keys"): objects.add_key,
    ("DELETE", "/api/v1/ssh-keys/{id}"): objects.delete_key,
    ("GET", "/api/v1/file-systems"): objects.list_file_systems,
    ("POST", "/api/v1/filesystems"): objects.create_file_system,
    ("DELETE", "/api/v1/filesystems/{id}"): objects.delete_file_system,
    ("GET", "/api/v1/regions"): objects.list_regions,
    ("GET", "/api/v1/images"): objects.list_images,
    ("GET", "/api/v1/firewall-rules"): objects.list_firewall_rules,
}
