"""The names of all fault knobs and settings of the emulators, as data: what each does and its value when nobody turned it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal["flag", "number", "range", "text", "json"]


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """kind range: a number, or [low, high] from which each machine draws. default None or False: off."""

    name: str
    kind: Kind
    about: str
    default: Any = None


def _flag(name: str, about: str, *, default: bool = False) -> Knob:
    return Knob(name=name, kind="flag", about=about, default=default)


def _number(name: str, about: str, *, default: float | None = None) -> Knob:
    return Knob(name=name, kind="number", about=about, default=default)


def _range(name: str, about: str, *, low: float, high: float) -> Knob:
    return Knob(name=name, kind="range", about=about, default=[low, high])


def _text(name: str, about: str, *, default: str | None = None) -> Knob:
    return Knob(name=name, kind="text", about=about, default=default)


SHARED_KNOBS = (
    Knob(
        name="http_error",
        kind="json",
        about="answer requests with {status, body, content_type, headers, delay_s, cut, garble}; match is `METHOD /path`;"
        " after_commit: the request takes effect first; cut: close the line without an answer; garble: mangle the body",
    ),
    _flag("api_down", "every request gets 503 and an HTML page"),
    _flag("key_revoked", "the account's key is refused with 401"),
    _flag("rate_limit_now", "429"),
    _number("list_stale_s", "listings show who was there this long ago"),
    _flag("capacity_race", "a create is refused although the catalogue lists stock"),
    _flag("sold_out", "the catalogue shows no stock and a create is refused"),
    _text("nvidia_smi", "on the machine: absent, failing, no_devices, wrong_memory, error_802 or hang"),
    _text("engine_crash", "on the machine: vllm prints this text and exits 1"),
    _flag("apt_get_fails", "on the machine: apt-get finds no package and exits 100"),
)

RUNPOD_KNOBS = (
    *SHARED_KNOBS,
    _text("mode", "B: RUNNING at once; A: PROVISIONING, STARTING, RUNNING", default="B"),
    _range("ssh_after_s", "from the create until ssh.direct and runtime are there", low=50, high=84),
    _number("create_visible_after_s", "the pod answers 404 and is missing in listings until then"),
    _flag("create_500_after_commit", "the pod is made and the answer is 500"),
    _flag("create_500", "the answer is 500 and nothing is made"),
    _number("create_hang_after_commit", "the pod is made and no answer comes for so many real seconds"),
    _flag("ssh_never", "ssh.direct stays null"),
    _flag("stuck_provisioning", "stays PROVISIONING for ever"),
    _number("exits_after_s", "the container exits by itself then"),
    _number("error_after_s", "the pod goes to ERROR then"),
    _flag("delete_500_but_done", "a delete takes effect and answers 500"),
    _flag("delete_500", "a delete answers 500 and nothing happens"),
    _number("delete_lag_s", "a deleted pod stays listed, and billed, so long"),
    _number("terminated_shown_s", "a deleted pod is listed as TERMINATED so long"),
    _flag("insufficient_balance_402", "a create is refused with 402"),
    _flag("pool_403", "a create is refused with 403"),
    _flag("edge_1010_html", "403, text `error code: 1010`, as the edge answers an unwelcome client"),
    _flag("edge_checks_agent", "refuse user agents that the edge is known to refuse", default=True),
    _flag("empty_401", "401 with a JSON content type and no body"),
    _flag("unknown_gpu_422", "an unknown GPU is 422 instead of 400"),
    _flag("count_quirk", "a create without gpu.count matches no machine", default=True),
    _flag("start_host_full", "action start: 400 in a shape of its own"),
    _flag("start_zero_gpu", "action start: the pod comes back with no GPU"),
    _text("pod_key_rights", "of the key inside a pod: full, graphql (REST refuses to delete) or none", default="full"),
    _number("page_cap", "no page of GET /v2/pods holds more"),
    _number("billing_lag_s", "the billing route knows nothing younger"),
    _number("disk_usd_per_gb_month", "billed while a pod exists", default=0.10),
    Knob(
        name="quota",
        kind="json",
        about="requests per minute, hour and day of the cloud's clock",
        default={"minute": 6000, "hour": 100_000, "day": 1_000_000},
    ),
)

LAMBDA_KNOBS = (
    *SHARED_KNOBS,
    _range("ip_after_s", "from the launch until ip is there", low=22, high=31),
    _range("active_after_s", "from the launch until active", low=113, high=242),
    _range("ssh_after_active_s", "from active until SSH answers (below 0: before)", low=0, high=5),
    _flag("ip_late", "ip appears only a minute after active"),
    _flag("boot_stuck", "stays booting for ever, without ip"),
    _flag("launch_500_after_commit", "the instance is made and the answer is 500"),
    _flag("launch_500", "the answer is 500 and nothing is made"),
    _number("launch_timeout_after_commit", "the instance is made and no answer comes for so many real seconds"),
    _number("get_404_after_launch_s", "GET /instances/{id} answers 404 until then; the listing has it"),
    _number("visible_after_s", "missing everywhere until then"),
    _number("unhealthy_at_s", "unhealthy from so long after the launch"),
    _number("unhealthy_for_s", "and active again so long after that"),
    _number("preempted_at_s", "preempted so long after the launch"),
    _text("capacity_lies", "hides: stock is there but not listed; boasts: listed but not there"),
    _flag("provider_unavailable", "a launch gets 503 provider/internal-unavailable"),
    _flag("account_inactive", "403 global/account-inactive"),
    _flag("region_invalid_parameters", "no capacity is told as 400 global/invalid-parameters"),
    _flag("launch_not_found_404", "an unknown type, key, image or file system is 404 instead of 400"),
    _number("instance_quota", "a launch beyond so many instances gets global/quota-exceeded"),
    _flag("terminate_500_but_done", "a terminate takes effect and answers 500"),
    _text("terminate_404_mixed", "several ids, one unknown: all (404, nothing is done) or partial", default="all"),
    _flag("terminate_refused_booting", "terminate of a booting instance: 400, action not available"),
    _range("terminating_s", "how long an instance is terminating", low=15, high=25),
    _number("terminated_shown_s", "how long it is then listed as terminated", default=30),
    _number("page_token_on_instances", "listings of instances come in pages of this size, with page_token"),
    _number("file_system_release_s", "is_in_use stays true so long after a terminate", default=30),
    _number("request_interval_s", "seconds of the cloud's clock between requests, 0: no limit", default=1.0),
    _number("request_burst", "so many requests may come at once", default=5),
    _number("launch_interval_s", "seconds of the cloud's clock between launches, 0: no limit", default=12.0),
    _text("rate_limit_body", "what a 429 holds: json, html, text or empty", default="json"),
    _number("rate_limit_retry_after", "the Retry-After of a 429, in real seconds"),
)
