"""What one random run through the engine is: drawn from a seed, so that the seed alone brings it back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

CloudKind = Literal["local", "runpod", "lambda"]
Ending = Literal["wait", "release", "force"]

MOMENTS = ("before creating", "creating", "booting", "booting", "dispatching", "dispatching", "destroying", "sweeping")
VICTIMS = (
    "life cycle",
    "life cycle",
    "life cycle",
    "pulumi",
    "pulumi",
    "provider",
    "plugin",
    "program",
    "dispatcher",
    "dispatcher",
    "tunnel",
    "machine",
    "follower",
    "orphan release",
)
FAULTS = {
    "local": ("", "", "", "delay=1.5", "unclear@0", "unclear", "no-capacity@1", "hang@1", "die=4@0"),
    "runpod": ("", "", "create_500_after_commit", "delete_500_but_done", "create_visible_after_s=50"),
    "lambda": ("", "", "launch_500_after_commit", "terminate_500_but_done"),
}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Kill `victims`, gap_s apart, delay_s after `moment`; pause_s later comes the ending. lease_s: how long machines may live."""

    seed: int
    cloud: CloudKind
    replicas: int
    lines: int
    slow_lines: int
    fault: str
    moment: str
    delay_s: float
    victims: tuple[str, ...]
    gap_s: float
    pause_s: float
    ending: Ending
    lease_s: float


def draw_scenario(seed: int) -> Scenario:
    rng = random.Random(seed)
    cloud: CloudKind = rng.choice(("local", "local", "local", "runpod", "lambda"))
    ending: Ending = rng.choice(("wait", "wait", "release", "force"))
    count = rng.choice((1, 2, 2))
    return Scenario(
        seed=seed,
        cloud=cloud,
        replicas=rng.choice((1, 2, 2)),
        lines=rng.randrange(60, 200),
        slow_lines=rng.choice((0, 10, 60, 60)),
        fault=rng.choice(FAULTS[cloud]),
        moment=rng.choice(MOMENTS),
        delay_s=rng.uniform(0, 1.5),
        victims=tuple(dict.fromkeys(rng.sample(VICTIMS, count))),
        gap_s=rng.choice((0.0, rng.uniform(0, 1.5))),
        pause_s=rng.uniform(0, 2),
        ending=ending,
        lease_s=float(rng.randrange(20, 36)) if ending == "wait" else 90.0,
    )
