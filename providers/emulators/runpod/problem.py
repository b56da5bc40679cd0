"""RunPod's error answers, in the shapes that its document and reports of live calls give. Raised by the routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from providers.emulators.call import Answer, Refused

PROBLEM_JSON = "application/problem+json"
NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)


def refuse(
    status: int,
    detail: str,
    *,
    errors: Sequence[str] = (),
    headers: Mapping[str, str] | None = None,
    fault: str = "",
) -> Refused:
    """A refusal as problem+json."""
    body: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    answer = Answer(status=status, body=body, content_type=PROBLEM_JSON, headers=headers or {})
    return Refused(answer, fault=fault, detail="; ".join([detail, *errors]))


def no_capacity(*, fault: str = "") -> Refused:
    return refuse(400, NO_CAPACITY, fault=fault)


def not_found(detail: str = "pod not found") -> Refused:
    return refuse(404, detail)


def no_key() -> Refused:
    return refuse(401, "missing bearer token")


def forbidden(*, fault: str = "") -> Refused:
    return refuse(403, "access denied", fault=fault)


def invalid(errors: Sequence[str]) -> Refused:
    return refuse(422, "Request validation failed.", errors=errors)
