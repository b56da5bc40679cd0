"""Finds a request by the hash of its custom_id, at 8 to 16 bytes a line. Used by adoption where inputs differ in order."""

from __future__ import annotations

from array import array

from runtime.batch.input_index import StoredHashes


class IdTable:
    """Open addressing over an index: each slot is empty (0) or a request's number + 1; at most half of them are taken."""

    def __init__(self, hashes: StoredHashes) -> None:
        self._hashes = hashes
        self._mask = (1 << (2 * hashes.lines).bit_length()) - 1
        self._slots = array("I", bytes(4 * (self._mask + 1)))
        for line in range(hashes.lines):
            slot = hashes.custom_id(line) & self._mask
            while self._slots[slot]:
                slot = (slot + 1) & self._mask
            self._slots[slot] = line + 1

    def find(self, custom_id_hash: int) -> int:
        """The request's number, or -1."""
        slot = custom_id_hash & self._mask
        while place := self._slots[slot]:
            if self._hashes.custom_id(place - 1) == custom_id_hash:
                return place - 1
            slot = (slot + 1) & self._mask
        return -1
