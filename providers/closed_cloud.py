"""Stands for a cloud whose client could not be made: every call raises the reason. Made by whoever gathers clouds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from providers.cloud import LaunchRequest, MachineState, Need, Offer
from schemas.errors import LeaseholdError


class ClosedCloud:
    """A Cloud that cannot be asked, so that release and reap treat it like any cloud with a refused key."""

    def __init__(self, reason: LeaseholdError) -> None:
        self.reason = reason

    def offers(self, need: Need) -> Sequence[Offer]:
        self._refuse()

    def launch(self, request: LaunchRequest) -> str:
        self._refuse()

    def find(self, name_or_id: str) -> MachineState | None:
        self._refuse()

    def terminate(self, id: str) -> None:
        self._refuse()

    def list_ours(self, prefix: str) -> Sequence[MachineState]:
        self._refuse()

    def logs(self, id: str) -> str:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise self.reason
