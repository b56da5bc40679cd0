"""The dispatcher and the clients that people write by hand, against one stub engine in one run. `./inv bench` starts it.

make the input -> serve the stub on one core -> every contender in every round on the other, in random order -> medians, ratios
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import (
    Contender,
    Task,
    install_openai,
    make_aiohttp_dispatcher_command,
    make_bare_command,
    make_dispatcher_command,
    make_httpx_command,
    make_openai_command,
)
from benchmarks.workload import Measurement, measure, serve_stub, write_input

QUICK_LINES, QUICK_ROUNDS = 20_000, 3
FULL_LINES, FULL_ROUNDS = 100_000, 5
SLOW_LINES = 4_000
LATE_LINES, LATE_IN_FLIGHT = 20_000, 2_048
DISPATCHER = "dispatcher"
_BARE = Contender(name="bare aiohttp + uvloop", make_command=make_bare_command)
_OURS = Contender(name=DISPATCHER, make_command=make_dispatcher_command)
_OVER_AIOHTTP = Contender(name="over-aiohttp dispatcher", make_command=make_aiohttp_dispatcher_command)
_HTTPX = Contender(name="httpx, gather", make_command=make_httpx_command, is_slow=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse_arguments(arguments)
    lines = options.lines or (FULL_LINES if options.full else QUICK_LINES)
    rounds = options.rounds or (FULL_ROUNDS if options.full else QUICK_ROUNDS)
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as name:
        folder = Path(name)
        source = folder / "input.jsonl"
        write_input(source, max(lines, LATE_LINES))
        contenders, skipped = _gather_contenders(folder)
        tables = {
            f"{options.in_flight} in flight, the engine answers at once": _compare(
                contenders, source, folder / "fast", lines=lines, in_flight=options.in_flight, rounds=rounds, stub={}
            ),
            f"{LATE_IN_FLIGHT} in flight, answers after 0.25 to 0.75 s": _compare(
                [_OURS, _OVER_AIOHTTP, _BARE],
                source,
                folder / "late",
                lines=LATE_LINES,
                in_flight=LATE_IN_FLIGHT,
                rounds=rounds,
                stub={"delay": 0.5, "jitter": 0.25},
            ),
        }
    for title, rows in tables.items():
        _print_table(title, rows)
    for name, reason in skipped.items():
        print(f"skipped: {name}: {reason}")
    _save(options.output, tables, skipped, rounds)
    return 0


def _gather_contenders(folder: Path) -> tuple[list[Contender], dict[str, str]]:
    contenders = [_OURS, _OVER_AIOHTTP, _BARE, _HTTPX]
    try:
        python = install_openai(folder / "venv")
    except (OSError, subprocess.SubprocessError) as error:
        return contenders, {"openai client": f"it cannot be installed: {error}"}
    openai = Contender(name="openai client, gather", make_command=make_openai_command(python), is_slow=True)
    return [*contenders, openai], {}


def _compare(
    contenders: list[Contender],
    source: Path,
    folder: Path,
    *,
    lines: int,
    in_flight: int,
    rounds: int,
    stub: dict[str, float],
) -> list[dict[str, Any]]:
    draw = random.Random(1)
    figures: dict[str, list[Measurement]] = {contender.name: [] for contender in contenders}
    counts = {each.name: min(lines, SLOW_LINES) if each.is_slow else lines for each in contenders}
    with serve_stub(padding=900, **stub) as url:
        for number in range(rounds):
            for contender in draw.sample(contenders, len(contenders)):
                place = folder / f"{number}-{contender.name.split()[0].strip(',')}"
                task = Task(url=url, source=source, folder=place, lines=counts[contender.name], in_flight=in_flight)
                figures[contender.name].append(measure(contender.make_command(task)))
                print(f"round {number + 1}: {contender.name}: {figures[contender.name][-1]}", file=sys.stderr)
    return _make_rows(figures, counts)


def _make_rows(figures: dict[str, list[Measurement]], counts: dict[str, int]) -> list[dict[str, Any]]:
    """Medians over the rounds; the ratios are taken within each round, as what else the machine does changes."""
    rows = []
    for name, rounds in figures.items():
        walls = [each.wall_s / counts[name] for each in rounds]
        cpus = [each.cpu_s / counts[name] for each in rounds]
        our_walls = [each.wall_s / counts[DISPATCHER] for each in figures[DISPATCHER]]
        our_cpus = [each.cpu_s / counts[DISPATCHER] for each in figures[DISPATCHER]]
        row = {
            "name": name,
            "lines": counts[name],
            "lines_per_s": round(1 / statistics.median(walls)),
            "cpu_us_per_line": round(statistics.median(cpus) * 1e6, 1),
            "peak_mb": round(statistics.median(each.peak_mb for each in rounds), 1),
            "speed_ratio": _median_ratio(walls, our_walls),
            "cpu_ratio": _median_ratio(cpus, our_cpus),
        }
        rows.append(row)
    return rows


def _median_ratio(theirs: list[float], ours: list[float]) -> float:
    return round(statistics.median(one / other for one, other in zip(theirs, ours, strict=True)), 2)


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}\n")
    print("| | lines | lines/s | CPU us a line | peak MB | dispatcher is faster by | needs less CPU by |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        figures = f"{row['lines']:,} | {row['lines_per_s']:,} | {row['cpu_us_per_line']:,} | {row['peak_mb']:.0f}"
        print(f"| {row['name']} | {figures} | {row['speed_ratio']:.2f} | {row['cpu_ratio']:.2f} |")


def _save(path: Path, tables: dict[str, list[dict[str, Any]]], skipped: dict[str, str], rounds: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()}
    load = os.getloadavg()[0]
    content = {"version": 1, "rounds": rounds, "machine": facts, "load": load, "skipped": skipped, "tables": tables}
    path.write_text(json.dumps(content, indent=2) + "\n")
    print(f"\nwritten to {path}")


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL_ROUNDS} rounds of {FULL_LINES} lines")
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--output", type=Path, default=Path(".leasehold/bench.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
