"""What the HTTP client must know about one cloud, and the errors that its refusals stand for. Made by each cloud's file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from providers.http.reply import Reply, clean
from providers.http.retry import Kind
from providers.http.secret import Secret
from schemas.errors import CloudError, CredentialError, RequestRefused, RetiredApi


@dataclass(frozen=True, kw_only=True)
class CloudApi:
    """words: the cloud's own words in an error reply, for people."""

    name: str
    base_url: str
    is_loopback: bool
    key: Secret
    key_variable: str
    url_variable: str
    least_right: str
    words: Callable[[Reply], str]
    default_wait_s: float

    def explain(
        self, reply: Reply, operation: str, kind: Kind, *, secrets: tuple[str, ...] = ()
    ) -> CloudError | CredentialError:
        """The error that a refusal stands for: its class by the status, the cloud's words as the detail."""
        name = self.name
        words = clean(self.words(reply), secrets=(self.key.reveal(), *secrets))
        said = f": {words}" if words else ""
        if reply.status == 401:
            return self.make_refused_key(f"{name} does not accept the key (HTTP 401){said}")
        if reply.status == 403 and isinstance(reply.data, dict) and kind != "create":
            return self.make_refused_key(f"{name} does not allow this key to {operation} (HTTP 403){said}")
        cause, fix = _diagnose(reply, self)
        return cause(
            f"{name} refused to {operation} (HTTP {reply.status}){said}",
            where=name,
            fix=fix,
            operation=operation,
            status=reply.status,
            request_id=reply.request_id,
            detail=words,
        )

    def make_refused_key(self, what: str) -> CredentialError:
        """The error for a key that is wrong or may too little; names the variable and the least right."""
        return CredentialError(
            what, where=self.key_variable, fix=f"Set {self.key_variable} to a key with at least: {self.least_right}."
        )


def _diagnose(reply: Reply, api: CloudApi) -> tuple[type[CloudError], str]:
    """Class and advice for a refusal that is not about the key."""
    if reply.status == 410:
        return RetiredApi, f"This version of the API is gone: unset {api.url_variable}, or update Leasehold."
    if reply.status < 400:
        return CloudError, f"The address has moved to another one; check {api.url_variable} ({api.base_url})."
    if reply.status == 403 and not isinstance(reply.data, dict):
        return CloudError, "This came from the network edge and not from the API: a firewall or proxy blocks us."
    return RequestRefused, "Nothing was done; change the request, or take another offer."
