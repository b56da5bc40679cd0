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
from urllib.parse import urlsplit

import msgspec

from providers.http.http_client import read_version
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


def find_flaw(url: str) -> str:
    """Why an address cannot be used, without repeating it; "" when it can."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        (host or "").encode("idna")  # a name such as `a..b` is none, which would be an error only when it is sent
        is_whole = parts.scheme in ("http", "https") and bool(host) and (parts.port or 1) > 0
    except ValueError:
        is_whole = False
    if not is_whole or not url.isascii() or not url.isprintable() or " " in url:
        return "it holds no http address"
    if parts.username is not None or parts.password is not None:
        return "the address holds a user or password"
    if parts.scheme == "http" and not is_loopback(url):
        return "the address is not https, and anybody on the way could read what is told"
    return ""


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
