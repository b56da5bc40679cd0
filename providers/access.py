"""What a cloud's key can do, found out by reading only. Called by `./inv doctor`."""

from __future__ import annotations

from typing import Literal

import msgspec

from providers.cloud import Cloud, Need
from schemas.errors import CredentialError, LeaseholdError, RetiredApi
from schemas.names import PREFIX

Access = Literal["ok", "no_key", "refused", "retired", "failed"]


class AccessReport(msgspec.Struct, frozen=True, kw_only=True):
    """One cloud's answer. can_list: machines are seen, so a release can be proven; can_price: offers are seen.

    state: ok (both work), no_key (not set), refused (the key is wrong or may too little), retired (that version of the API
    is gone), failed (no usable answer). Whether the key may create is not tried: it would cost money.
    """

    cloud: str
    state: Access
    can_list: bool = False
    can_price: bool = False
    machines: int = 0
    offers: int = 0
    message: str = ""
    fix: str = ""


def check_access(name: str, cloud: Cloud) -> AccessReport:
    """Ask a cloud for our machines and for its offers; never raises one of our errors."""
    try:
        machines = len(cloud.list_ours(PREFIX))
    except LeaseholdError as error:
        return _make_failed(name, error)
    try:
        offers = sum(offer.available for offer in cloud.offers(Need()))
    except LeaseholdError as error:
        report = _make_failed(name, error)
        return msgspec.structs.replace(report, can_list=True, machines=machines)
    return AccessReport(cloud=name, state="ok", can_list=True, can_price=True, machines=machines, offers=offers)


def _make_failed(name: str, error: LeaseholdError) -> AccessReport:
    state: Access = "failed"
    if isinstance(error, RetiredApi):
        state = "retired"
    elif isinstance(error, CredentialError):
        state = "no_key" if "is not set" in error.what else "refused"
    message = f"{error.where}: {error.what}" if error.where else error.what
    return AccessReport(cloud=name, state=state, message=message, fix=error.fix)
