"""One way to get a machine: an offer and what is sent with it. Made by the plan, walked in order by the Machine resource."""

from __future__ import annotations

import msgspec

from providers.cloud import Offer


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """An offer together with what its candidate asks for; image "" and disk_gb 0 leave it to the cloud's settings."""

    offer: Offer
    image: str = ""
    disk_gb: int = 0
    settings: dict[str, str] = {}
