"""What must hold in a run's own files, whoever was killed: every request once, and no create blind to an earlier one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from providers.lease.intents import fold_histories, load_intents

RESULTS = ("output.jsonl", "output.jsonl.part", "error.jsonl", "error.jsonl.part")


def find_lost_or_doubled(folder: Path, lines: int) -> list[str]:
    """Each custom_id at most once over all results, and exactly once when the dispatcher said its last word."""
    found = Counter(id for name in RESULTS for id in _read_ids(folder / name))
    doubled = [id for id, count in found.items() if count > 1]
    lost = lines - len(found) if _is_finished(folder) else 0
    broken = [f"results that are there twice: {doubled[:5]}"] if doubled else []
    return [*broken, *([f"{lost} of {lines} results are lost"] if lost else [])]


def find_blind_creates(folder: Path) -> list[str]:
    """Intents that followed a create of the same index of which nobody knew what had become, without a look in between."""
    if not (folder / "intents.jsonl").exists():
        return []
    intents = load_intents(folder).intents
    blind = []
    for place, intent in enumerate(intents):
        if intent.kind != "intent":
            continue
        before = [each for each in fold_histories(intents[:place]) if each.index == intent.index]
        blind += [
            f"{intent.name} was created blind to {each.name}"
            for each in before
            if each.unclear and each.outcome in ("", "unclear")
        ]
    return blind


def _read_ids(path: Path) -> list[str]:
    if not path.exists():
        return []
    ids = []
    for line in path.read_bytes().split(b"\n"):
        try:
            ids.append(json.loads(line)["custom_id"])
        except ValueError:
            # A last line that a kill cut off.
            continue
    return ids


def _is_finished(folder: Path) -> bool:
    try:
        progress = json.loads((folder / "progress.json").read_bytes())
    except (OSError, ValueError):
        return False
    return progress["state"] == "finished" or (progress["state"] == "stopped" and progress["stop_reason"] is not None)
