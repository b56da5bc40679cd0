"""An order in which requests that begin alike follow each other, so that an engine's prefix cache is hit. For `order: prefix`."""

from __future__ import annotations

from array import array

from runtime.batch.batch_input import hash_bytes
from runtime.batch.input_index import BatchInput

_SPANS = (256, 1024, 4096)


def order_by_prefix(batch: BatchInput) -> array[int]:
    """All requests, grouped by their bodies' first bytes (long common beginnings within short ones), else in input order.

    Reads the whole input once and keeps 12 bytes a line for each span while it sorts.
    """
    ranks: list[array[int]] = [array("L") for _ in _SPANS]
    seen: list[dict[int, int]] = [{} for _ in _SPANS]
    for line in range(batch.lines):
        body = bytes(batch.read(line).body)
        for span, rank, known in zip(_SPANS, ranks, seen, strict=True):
            rank.append(known.setdefault(hash_bytes(body[:span]), line))
    order = array("L", range(batch.lines))
    for rank in reversed(ranks):
        order = array("L", sorted(order, key=rank.__getitem__))
    return order
