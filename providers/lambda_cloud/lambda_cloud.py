"""Lambda Cloud, API v1: instances as machines. Made by the registry; the contract is providers.cloud.Cloud and KeyedCloud."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from providers.clock import Clock, SystemClock
from providers.cloud import LaunchRequest, MachineState, Need, Offer
from providers.gpus import resolve_gpu, suggest_names
from providers.http.cloud_api import CloudApi
from providers.http.http_client import NO_PARAMS, HttpClient, Transport
from providers.http.rate_limit import SharedPace
from providers.http.reply import Reply, get, read_list, read_text, require_list
from providers.http.shared_read import SharedRead
from providers.lambda_cloud.boot import make_launch_body
from providers.lambda_cloud.catalog import list_regions, make_offers, read_types
from providers.lambda_cloud.instance import (
    Key,
    Page,
    find_key,
    is_gone,
    is_no_capacity,
    is_same_key,
    read_code,
    read_keys,
    read_launched_id,
    read_page,
    read_words,
)
from providers.settings import CloudSettings, require_key
from schemas.errors import CloudError, LeaseholdError, NoCapacity, RequestRefused, SpecError, UnclearOutcome
from schemas.loopback import is_loopback
from schemas.names import make_key_name, parse_machine_name

KEY_VARIABLE = "LAMBDA_CLOUD_API_KEY"
URL_VARIABLE = "LAMBDA_CLOUD_BASE_URL"
LEAST_RIGHT = "an API key of the account (Lambda has no narrower ones)"
# One request a second and one launch in 12 s, and a little more, since requests do not all travel equally long.
REQUEST_INTERVAL_S = 1.1
LAUNCH_INTERVAL_S = 12.5
_LAUNCH = "launch an instance"
_REFUSALS = frozenset({400, 403, 404, 409, 422})
_UNHEALTHY_GRACE_S = 180.0
_MAX_PAGES = 1000
# While a launch waits for its turn the lease is locked: rather come back later.
_LAUNCH_PATIENCE_S = 3.0

# One a base URL and key: every machine that boots asks for the same listing, and all share one request a second.
_LISTINGS: defaultdict[str, SharedRead[list[MachineState]]] = defaultdict(SharedRead)


class LambdaCloud:
    """Instances of one account. A missing key shows at the first use."""

    def __init__(
        self, settings: CloudSettings, *, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._transport = transport
        self._is_loopback = is_loopback(settings.lambda_base_url)
        self._registered: dict[str, str] = {}
        self._unhealthy_since: dict[str, float] = {}

    def offers(self, need: Need) -> Sequence[Offer]:
        if need.tier:
            raise SpecError(
                f"Lambda has no tiers, so it has no {need.tier!r}", where="tier", fix="Leave out `tier` for Lambda."
            )
        wanted = resolve_gpu(need.gpu) if need.gpu else None
        types = self._read("list instance types", "/instance-types", read_types)
        default = (self._settings.lambda_region,) if self._settings.lambda_region else ()
        regions = need.regions or default
        unknown = [region for region in regions if region not in list_regions(types)]
        if unknown:
            self._check_regions(unknown)
        return make_offers(types, need, wanted, regions)

    def launch(self, request: LaunchRequest) -> str:
        if not request.offer.region:
            raise NoCapacity(f"Lambda listed no region with {request.offer.gpu_id}", where="lambda", fix="Try later.")
        body = make_launch_body(request, self._settings, self._find_key_name(request))
        reply = self._client.call(
            _LAUNCH,
            "create",
            "POST",
            "/instance-operations/launch",
            body=body,
            accept=_REFUSALS,
            secrets=(request.host_private_key,),
            parse=read_launched_id,
            patience_s=_LAUNCH_PATIENCE_S,
        )
        if reply.status < 300:
            return read_text(read_list(get(reply.data, "data", "instance_ids"))[0])
        raise self._make_refusal(reply, request)

    def find(self, name_or_id: str) -> MachineState | None:
        """By listing: a look-up of one id may still say 404 just after the launch."""
        is_name = parse_machine_name(name_or_id) is not None
        # Somebody's instance may be called like an id of ours.
        matches = [each for each in self._list() if name_or_id == (each.name if is_name else each.id)]
        found = min(matches, key=lambda each: each.id, default=None)
        return None if found is None else self._judge_health(found)

    def terminate(self, id: str) -> None:
        """One id a call: what a list with a bad id in it does is not documented."""
        reply = self._client.call(
            "terminate an instance",
            "delete",
            "POST",
            "/instance-operations/terminate",
            body={"instance_ids": [id]},
            accept={400, 404},
            parse=_accept,
        )
        if reply.status >= 400 and not is_gone(reply):
            raise self._client.api.explain(reply, "terminate an instance", "delete")

    def list_ours(self, prefix: str) -> Sequence[MachineState]:
        return [each for each in self._list() if each.name.startswith(prefix)]

    def server_time(self) -> float | None:
        """The API's own clock, from the answer to a listing."""
        list(self._list())
        return self._client.server_time

    def logs(self, id: str) -> str:
        """Lambda has no boot log outside of the machine."""
        return ""

    def register_key(self, name: str, public_key: str) -> None:
        if not self._settings.lambda_ssh_keys:
            self._register(name, public_key)

    def list_keys(self, prefix: str) -> Sequence[str]:
        return [key.name for key in self._list_keys() if key.name.startswith(prefix)]

    def remove_key(self, name: str) -> None:
        for key in self._list_keys():
            if key.name == name:
                path = f"/ssh-keys/{quote(key.id, safe='')}"
                self._client.call("remove an SSH key", "delete", "DELETE", path, accept={404}, parse=_accept)
        self._registered = {public: known for public, known in self._registered.items() if known != name}

    @functools.cached_property
    def _client(self) -> HttpClient:
        url = self._settings.lambda_base_url
        key = require_key(
            self._settings.lambda_api_key, variable=KEY_VARIABLE, cloud="Lambda Cloud", least_right=LEAST_RIGHT
        )
        pace = self._settings.emulator_pace if self._is_loopback else 1.0
        intervals = {"": REQUEST_INTERVAL_S / pace, _LAUNCH: LAUNCH_INTERVAL_S / pace}
        api = CloudApi(
            name="Lambda Cloud",
            base_url=url,
            is_loopback=self._is_loopback,
            key=key,
            key_variable=KEY_VARIABLE,
            url_variable=URL_VARIABLE,
            least_right=LEAST_RIGHT,
            words=read_words,
            default_wait_s=LAUNCH_INTERVAL_S / pace,
        )
        return HttpClient(
            api,
            limiter=SharedPace(self._settings.state_dir / "pace", self._account, intervals, wall=self._clock.now),
            clock=self._clock,
            request_timeout_s=self._settings.request_timeout_s,
            transport=self._transport,
        )

    @property
    def _account(self) -> str:
        key = self._settings.lambda_api_key
        return f"{self._settings.lambda_base_url} {key.reveal() if key else ''}"

    def _read(self, operation: str, path: str, parse: Any, **more: Any) -> Any:
        return self._client.call(operation, "read", "GET", path, parse=parse, **more)

    def _list(self) -> list[MachineState]:
        """Every instance of the account that is not gone."""
        return _LISTINGS[self._account].fetch(lambda depart: list(self._walk_pages(depart)))

    def _walk_pages(self, depart: Callable[[], None]) -> Iterator[MachineState]:
        """Pages are not documented, but followed if they come."""
        parse = functools.partial(read_page, trust_ssh_port=self._is_loopback)
        token = ""
        tokens: set[str] = set()
        for _ in range(_MAX_PAGES):
            params: Mapping[str, str] = {"page_token": token} if token else NO_PARAMS
            page: Page = self._read("list instances", "/instances", parse, params=params, on_turn=depart)
            yield from page.instances
            token = page.token
            if not token:
                return
            if token in tokens:
                break
            tokens.add(token)
        raise CloudError(
            "Lambda's list of instances does not end",
            where="Lambda Cloud",
            operation="list instances",
            fix="Try again.",
        )

    def _judge_health(self, state: MachineState) -> MachineState:
        """`unhealthy` may pass; one that stays so has failed, and goes on costing money."""
        if state.detail != "unhealthy":
            self._unhealthy_since.pop(state.id, None)
            return state
        now = self._clock.monotonic()
        if now - self._unhealthy_since.setdefault(state.id, now) < _UNHEALTHY_GRACE_S:
            return state
        detail = f"unhealthy for more than {_UNHEALTHY_GRACE_S:.0f} s"
        return msgspec.structs.replace(state, phase="failed", detail=detail)

    def _find_key_name(self, request: LaunchRequest) -> str:
        """The one SSH key of a launch: the account's own if one is named, else the job's, registered if it is missing."""
        if self._settings.lambda_ssh_keys:
            return self._settings.lambda_ssh_keys[0]
        known = self._registered.get(request.public_key)
        if known is not None:
            return known
        name = parse_machine_name(request.name)
        if name is None:
            raise SpecError(f"{request.name!r} is no name of ours", where="lambda", fix="Let Leasehold make the names.")
        return self._register(make_key_name(token=name.token, expires_at=request.expires_at), request.public_key)

    def _register(self, name: str, public_key: str) -> str:
        """The name under which the account has this key; adding a name twice is refused, so trying again is safe."""
        known = find_key(self._list_keys(), name, public_key)
        if known is None:
            self._add_key(name, public_key)
        found = known.name if known is not None else name
        self._registered[public_key] = found
        return found

    def _add_key(self, name: str, public_key: str) -> None:
        body = {"name": name, "public_key": " ".join(public_key.split()[:2])}
        try:
            reply: Reply = self._client.call(
                "add an SSH key", "create", "POST", "/ssh-keys", body=body, accept=_REFUSALS, parse=_accept
            )
        except UnclearOutcome as lost:
            if find_key(self._list_keys(), name, public_key) is None:
                raise CloudError(
                    f"the SSH key {name} could not be added: {lost.what}", where="Lambda Cloud", fix="Try again."
                ) from lost
            return
        if reply.status < 300:
            return
        stands = [key for key in self._list_keys() if key.name == name]
        if not any(is_same_key(key.public_key, public_key) for key in stands):
            raise self._client.api.explain(reply, "add an SSH key", "create")

    def _list_keys(self) -> list[Key]:
        keys: list[Key] = self._read("list SSH keys", "/ssh-keys", read_keys)
        return keys

    def _make_refusal(self, reply: Reply, request: LaunchRequest) -> LeaseholdError:
        error = self._client.api.explain(reply, _LAUNCH, "create", secrets=(request.host_private_key,))
        if not isinstance(error, CloudError):
            return error
        if is_no_capacity(reply):
            return NoCapacity(
                f"no capacity for {request.offer.gpu_id} in {request.offer.region}: {error.detail}",
                where="lambda",
                fix="Take another offer; what is listed may be gone a minute later.",
            )
        code = read_code(reply)
        if reply.status == 403 and code:
            return self._client.api.make_refused_key(f"Lambda Cloud does not let this account launch: {error.detail}")
        if code == "global/quota-exceeded":
            error.fix = "The account's quota is used up: end other instances, or ask Lambda to raise it."
        elif code == "global/object-does-not-exist":
            self._registered.clear()
            error.fix = "See whether LAMBDA_CLOUD_SSH_KEYS, file_system and image_family name what the account has."
        elif isinstance(error, RequestRefused):
            error.fix = "Nothing was launched; take another offer, or change what the message names."
        return error

    def _check_regions(self, unknown: Sequence[str]) -> None:
        """Refuse regions that do not exist; one that is only sold out is fine. Older services cannot list regions."""
        known: list[str] = self._client.call(
            "list regions", "read", "GET", "/regions", accept={404}, parse=_read_regions
        )
        wrong = [region for region in unknown if region not in known]
        if wrong and known:
            near = ", ".join(suggest_names(wrong[0], known)) or ", ".join(known[:4])
            raise SpecError(f"Lambda has no region {wrong[0]!r}", where="regions", fix=f"Nearest: {near}.")


def _accept(reply: Reply) -> Reply:
    return reply


def _read_regions(reply: Reply) -> list[str]:
    if reply.status == 404:
        return []
    names = (read_text(get(region, "name")) for region in require_list(reply.data, "data"))
    return sorted(name for name in names if name)
