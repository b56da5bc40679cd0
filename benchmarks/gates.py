"""What the dispatcher promises beyond speed, measured. `./inv bench --gates` starts it; exit code 1 when a gate does not hold."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.gate import Finding
from benchmarks.gate_kills import check_kills
from benchmarks.gate_knees import check_knees
from benchmarks.gate_machines import check_many, check_uneven
from benchmarks.gate_memory import check_memory
from benchmarks.gate_objects import check_lost_computers, check_object_memory

QUICK_KILLS, FULL_KILLS = 10, 50
QUICK_LINES, FULL_LINES = 200_000, 1_000_000
QUICK_OBJECT_MB, FULL_OBJECT_MB = 200, 1_000
_GATES = ["knees", "uneven", "many", "kills", "memory", "s3-memory", "s3-kills"]


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse_arguments(arguments)
    kills, lines = (FULL_KILLS, FULL_LINES) if options.full else (QUICK_KILLS, QUICK_LINES)
    megabytes = FULL_OBJECT_MB if options.full else QUICK_OBJECT_MB
    gates: dict[str, Callable[[Path], list[Finding]]] = {
        "knees": check_knees,
        "uneven": check_uneven,
        "many": check_many,
        "kills": lambda folder: check_kills(folder / "kills", kills),
        "memory": lambda folder: check_memory(folder / "memory", lines),
        "s3-memory": lambda folder: check_object_memory(folder / "memory", megabytes),
        "s3-kills": lambda folder: check_lost_computers(folder / "kills", min(kills, 10)),
    }
    findings = []
    print("| gate | measured | wanted | holds |\n|---|---|---|---|", flush=True)
    for name in options.only or gates:
        with tempfile.TemporaryDirectory(prefix="leasehold-gate-") as folder:
            found = gates[name](Path(folder))
        findings += found
        for each in found:
            print(f"| {each.gate} | {each.figure} | {each.wanted} | {'yes' if each.holds else 'no'} |", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(msgspec.json.encode({"version": 1, "load": os.getloadavg()[0], "gates": findings}))
    return 0 if all(each.holds for each in findings) else 1


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL_KILLS} kills, {FULL_LINES:,} lines")
    parser.add_argument("--only", action="append", choices=_GATES)
    parser.add_argument("--output", type=Path, default=Path(".leasehold/gates.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
