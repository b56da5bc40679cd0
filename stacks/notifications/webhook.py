"""Sends one notification to one address, once, and says how that went. Called by the couriers of the notifier.

Python's own client is enough here: one POST to somebody else's server, whose answer is only a status. Redirects are not
followed, since what is told was meant for one address. No text that comes from here holds more of it than the host.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import msgspec

from providers.http.version import read_version
from schemas.loopback import is_loopback

TRY_TIMEOUT_S = 5.0


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How one try went. is_final: trying again would change nothing. words: without any part of the address."""

    ok: bool
    is_final: bool
    words: str
    status: int = 0


def make_signature(secret: str, body: bytes) -> str:
    """The value of X-Leasehold-Signature."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float = TRY_TIMEOUT_S) -> Delivery:
    """POST a JSON body; any 2xx is success, and of the refusals only 408, 425 and 429 are worth another try."""
    sent = {"Content-Type": "application/json", "User-Agent": f"leasehold/{read_version()}", **headers}
    request = urllib.request.Request(url, data=body, headers=sent, method="POST")
    try:
        with _make_opener(url).open(request, timeout=timeout_s) as answer:
            return Delivery(ok=True, is_final=True, words=f"HTTP {answer.status}", status=answer.status)
    except urllib.error.HTTPError as error:
        with error:
            is_final = error.code < 500 and error.code not in (408, 425, 429)
            return Delivery(ok=False, is_final=is_final, words=f"HTTP {error.code}", status=error.code)
    except (OSError, http.client.HTTPException) as error:
        return Delivery(ok=False, is_final=False, words=_describe(error, timeout_s))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        return None


def _make_opener(url: str) -> urllib.request.OpenerDirector:
    direct = [urllib.request.ProxyHandler({})] if is_loopback(url) else []
    return urllib.request.build_opener(_NoRedirect, *direct)


def _describe(error: OSError | http.client.HTTPException, timeout_s: float) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer in {timeout_s:g} s"
    words = reason.strerror if isinstance(reason, OSError) else ""
    return words or type(reason).__name__
