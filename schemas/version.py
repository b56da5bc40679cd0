"""Which Leasehold did something: a record that leaves a process. Found by toolchain.version, kept in plans and receipts."""

from __future__ import annotations

import msgspec


class LeaseholdVersion(msgspec.Struct, frozen=True, kw_only=True):
    """commit: the checkout's, "" where that is not known. is_changed: files that git tracks differ from it; None: not known."""

    version: str
    commit: str = ""
    is_changed: bool | None = None

    def __str__(self) -> str:
        if not self.commit:
            return self.version
        changed = {True: ", with changes", False: "", None: ", perhaps with changes"}[self.is_changed]
        return f"{self.version} (commit {self.commit[:12]}{changed})"
