"""RunPod, REST v2: pods as machines. Made by the registry; the contract is providers.cloud.Cloud and BillingCloud."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from urllib.parse import quote, urlsplit

from providers.clock import Clock, SystemClock
from providers.cloud import LaunchRequest, MachineState, Need, Offer
from providers.gpus import resolve_gpu, suggest_names
from providers.http.cloud_api import CloudApi
from providers.http.http_client import HttpClient, Transport
from providers.http.rate_limit import HeaderLimiter
from providers.http.reply import GarbledAnswer, Reply, get, read_text, require_list
from providers.runpod.catalog import TIERS, list_places, make_offers, read_items
from providers.runpod.pod import (
    Page,
    format_time,
    is_missing_arrays,
    is_no_capacity,
    read_billed_usd,
    read_created_id,
    read_log,
    read_page,
    read_pod,
    read_words,
)
from providers.runpod.start import encode_host_key, make_args_body, make_pod_body
from providers.settings import CloudSettings, require_key
from schemas.errors import CloudError, LeaseholdError, NoCapacity, RequestRefused, RetiredApi, SpecError
from schemas.loopback import is_loopback
from schemas.names import parse_machine_name

KEY_VARIABLE = "RUNPOD_API_KEY"
URL_VARIABLE = "RUNPOD_BASE_URL"
LEAST_RIGHT = "a restricted key with read and write for pods, read for the catalog and for billing"
_REFUSALS = frozenset({400, 402, 403, 404, 409, 413, 422})
_LOG_BYTES = 64 * 1024
_MAX_PAGES = 1000
# While a create waits for its turn the lease is locked: rather come back later.
_CREATE_PATIENCE_S = 3.0


class RunPod:
    """Pods of one account. A missing key shows at the first use."""

    def __init__(
        self,
        settings: CloudSettings,
        *,
        clock: Clock | None = None,
        transport: Transport | None = None,
        log_idle_s: float = 3.0,
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._transport = transport
        self._log_idle_s = log_idle_s
        self._knows_arrays = True

    def offers(self, need: Need) -> Sequence[Offer]:
        tier = need.tier or self._settings.runpod_cloud_type.lower()
        if tier not in TIERS:
            raise SpecError(
                f"RunPod has no tier {tier!r}", where="tier", fix=f"Write one of: {', '.join(TIERS)}; or leave it out."
            )
        wanted = resolve_gpu(need.gpu) if need.gpu else None
        params = {"include": "AVAILABILITY", "product": "POD", "count": str(need.count), "cloud": tier.upper()}
        read = functools.partial(read_items, tier=tier)
        items = self._client.call("list GPU types", "read", "GET", "/catalog/gpus", params=params, parse=read)
        regions = tuple(region.upper() for region in need.regions) or self._settings.runpod_data_centers
        unknown = [region for region in regions if region not in list_places(items)]
        if unknown:
            self._check_regions(unknown)
        return make_offers(items, need, wanted, regions)

    def launch(self, request: LaunchRequest) -> str:
        body = make_pod_body(request, self._settings)
        secrets = (request.host_private_key, encode_host_key(request.host_private_key))
        reply = self._create(body if self._knows_arrays else make_args_body(body), secrets)
        if self._knows_arrays and is_missing_arrays(reply):
            # A 422 made nothing, so this is the first create that counts.
            self._knows_arrays = False
            reply = self._create(make_args_body(body), secrets)
        if reply.status < 300:
            return read_text(get(reply.data, "id"))
        raise self._make_refusal(reply, request, secrets)

    def find(self, name_or_id: str) -> MachineState | None:
        is_name = parse_machine_name(name_or_id) is not None
        if not is_name:
            path = f"/pods/{quote(name_or_id, safe='')}"
            read = functools.partial(_read_found, machine_id=name_or_id)
            found = self._client.call("look up a pod", "read", "GET", path, accept={404}, parse=read)
            if found is not None:
                return found
        # Somebody's pod may be called like an id of ours.
        matches = [pod for pod in self._list() if name_or_id == (pod.name if is_name else pod.id)]
        return min(matches, key=lambda pod: pod.created_at, default=None)

    def terminate(self, id: str) -> None:
        path = f"/pods/{quote(id, safe='')}"
        self._client.call("terminate a pod", "delete", "DELETE", path, accept={404}, parse=_ignore)

    def list_ours(self, prefix: str) -> Sequence[MachineState]:
        return [pod for pod in self._list() if pod.name.startswith(prefix)]

    def server_time(self) -> float | None:
        """The API's own clock, from the answer to a listing."""
        list(self._list())
        return self._client.server_time

    def logs(self, id: str) -> str:
        path = f"/pods/{quote(id, safe='')}/logs"
        lines = self._client.read_lines("read a pod's log", path, {"tail": "500"}, idle_s=self._log_idle_s)
        return read_log(lines, at_most=_LOG_BYTES)

    def billed_usd(self, id: str, *, start: float, end: float) -> float | None:
        params = {
            "podId": id,
            "startTime": format_time(start),
            "endTime": format_time(max(end, start + 1)),
            "bucketSize": "hour",
        }
        read = functools.partial(read_billed_usd, pod_id=id)
        return self._client.call("read a pod's bill", "read", "GET", "/billing/pods", params=params, parse=read)

    @functools.cached_property
    def _client(self) -> HttpClient:
        url = self._settings.runpod_base_url
        if urlsplit(url).hostname == "rest.runpod.io":
            raise RetiredApi(
                "this is RunPod's REST v1, which was retired on 15 November 2026",
                where=URL_VARIABLE,
                fix=f"Unset {URL_VARIABLE}: Leasehold speaks REST v2.",
            )
        key = require_key(self._settings.runpod_api_key, variable=KEY_VARIABLE, cloud="RunPod", least_right=LEAST_RIGHT)
        api = CloudApi(
            name="RunPod",
            base_url=url,
            is_loopback=is_loopback(url),
            key=key,
            key_variable=KEY_VARIABLE,
            url_variable=URL_VARIABLE,
            least_right=LEAST_RIGHT,
            words=read_words,
            default_wait_s=10.0,
        )
        return HttpClient(
            api,
            limiter=HeaderLimiter(self._clock.monotonic),
            clock=self._clock,
            request_timeout_s=self._settings.request_timeout_s,
            transport=self._transport,
        )

    def _create(self, body: dict[str, object], secrets: tuple[str, ...]) -> Reply:
        return self._client.call(
            "create a pod",
            "create",
            "POST",
            "/pods",
            body=body,
            accept=_REFUSALS,
            secrets=secrets,
            parse=read_created_id,
            patience_s=_CREATE_PATIENCE_S,
        )

    def _make_refusal(self, reply: Reply, request: LaunchRequest, secrets: tuple[str, ...]) -> LeaseholdError:
        offer = request.offer
        error = self._client.api.explain(reply, "create a pod", "create", secrets=secrets)
        what = (
            f"{offer.count} x {offer.gpu} in RunPod's {offer.tier} cloud{f' ({offer.region})' if offer.region else ''}"
        )
        if not isinstance(error, CloudError):
            return error
        if is_no_capacity(reply):
            return NoCapacity(
                f"no capacity for {what}: {error.detail}",
                where="runpod",
                fix="Take another offer; an account at its spend limit gets these words too.",
            )
        if reply.status == 403 and error.detail.strip().lower() in ("access denied", "forbidden"):
            return self._client.api.make_refused_key(f"RunPod does not allow this key to create pods: {error.detail}")
        if reply.status == 402:
            error.fix = "Add credit to the RunPod account: no offer of it will do before that."
        elif isinstance(error, RequestRefused):
            error.fix = "If every offer is refused like this, the order itself is wrong; else take another offer."
        return error

    def _list(self) -> Iterator[MachineState]:
        """Every pod of the account, over all pages."""
        params = {"includeClusterPods": "true"}
        cursors: set[str] = set()
        for _ in range(_MAX_PAGES):
            page: Page = self._client.call("list pods", "read", "GET", "/pods", params=params, parse=read_page)
            yield from page.pods
            if not page.cursor:
                return
            if page.cursor in cursors:
                break
            cursors.add(page.cursor)
            params = {**params, "cursor": page.cursor}
        raise CloudError("RunPod's list of pods does not end", where="RunPod", operation="list pods", fix="Try again.")

    def _check_regions(self, unknown: Sequence[str]) -> None:
        """Refuse data centres that do not exist; one that is only sold out is fine."""
        known = self._client.call("list data centers", "read", "GET", "/catalog/datacenters", parse=_read_data_centers)
        wrong = [region for region in unknown if region not in known]
        if wrong and known:
            near = ", ".join(suggest_names(wrong[0], known)) or ", ".join(known[:4])
            raise SpecError(f"RunPod has no data center {wrong[0]!r}", where="regions", fix=f"Nearest: {near}.")


def _ignore(_reply: Reply) -> None:
    """The answer to a delete proves nothing; looking does."""


def _read_found(reply: Reply, machine_id: str) -> MachineState | None:
    if reply.status == 404:
        return None
    state = read_pod(reply.data)
    if state is not None and state.id != machine_id:
        raise GarbledAnswer("this is another pod than was asked for")
    return state


def _read_data_centers(reply: Reply) -> list[str]:
    places = (read_text(get(place, "id")).upper() for place in require_list(reply.data, "dataCenters"))
    return sorted(place for place in places if place)
