"""What one random run through the engine is: drawn from a seed, so that the seed alone brings it back."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

CloudKind = Literal["local", "runpod", "lambda"]
Ending = Literal["wait", "release", "force"]

VICTIMS = {
    "before creating": ("life cycle", "pulumi", "program", "follower"),
    "creating": ("life cycle", "pulumi", "provider", "plugin", "dispatcher", "machine"),
    "booting": ("life cycle", "pulumi", "provider", "plugin", "program", "machine", "dispatcher", "follower"),
    "dispatching": ("life cycle", "dispatcher", "tunnel", "machine", "follower", "pulumi"),
    "destroying": ("life cycle", "pulumi", "provider", "plugin", "orphan release"),
    "sweeping": ("life cycle", "pulumi", "provider", "orphan release"),
}
MOMENTS = ("before creating", "creating", "booting", "booting", "dispatching", "dispatching", "destroying", "sweeping")
LATEST_S = {
    "dispatching": 1.5,
    "booting": 1.5,
    "before creating": 1.5,
    "destroying": 1.2,
    "sweeping": 0.6,
    "creating": 0.6,
}
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
    moment = rng.choice(MOMENTS)
    victims = rng.sample(VICTIMS[moment], rng.choice((1, 2, 2)))
    return Scenario(
        seed=seed,
        cloud=cloud,
        replicas=rng.choice((1, 2, 2)),
        lines=rng.randrange(60, 200),
        slow_lines=rng.choice((0, 60, 150, 150)),
        fault=rng.choice(FAULTS[cloud]),
        moment=moment,
        delay_s=rng.uniform(0, LATEST_S[moment]),
        victims=tuple(victims),
        gap_s=rng.choice((0.0, rng.uniform(0, 1.5))),
        pause_s=rng.uniform(0, 2),
        ending=ending,
        lease_s=float(rng.randrange(20, 36)) if ending == "wait" else 90.0,
    )
