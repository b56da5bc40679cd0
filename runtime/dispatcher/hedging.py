"""Which requests a second replica should try as well when nothing else is left to send. Pure; called by the fleet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.dispatcher.flight import Flight
from runtime.dispatcher.replica import Replica

GAIN = 1.5
LATE_FACTOR = 2.0
SHORTEST_S = 0.5


def choose_hedges(replicas: Sequence[Replica], *, now: float) -> list[tuple[Flight, Replica]]:
    """Pairs of a flight and an idle replica that will likely be done before it, the longest in flight first.

    Each request gets at most one twin, a suspect of killing engines none. A replica whose speed is not known yet
    helps nobody.
    """
    ready = [replica for replica in replicas if replica.state == "ready" and not replica.is_alone]
    room = {replica.index: replica.window.size - replica.in_flight for replica in ready}
    median_s = {replica.index: replica.latencies.percentile(0.5) for replica in replicas}
    late_s = {replica.index: replica.latencies.percentile(0.9) * LATE_FACTOR for replica in replicas}
    chosen = []
    for own, flight in sorted(_single_flights(replicas), key=lambda single: single[1].sent_at):
        age_s = now - flight.sent_at
        is_late = age_s > max(SHORTEST_S, late_s[own.index])
        left_s = float("inf") if is_late or not median_s[own.index] else max(0.0, median_s[own.index] - age_s)
        helpers = [
            replica
            for replica in ready
            if replica is not own and room[replica.index] > 0 and 0 < median_s[replica.index] * GAIN < left_s
        ]
        if helpers and age_s > 0:
            helper = min(helpers, key=lambda replica: median_s[replica.index])
            room[helper.index] -= 1
            chosen.append((flight, helper))
    return chosen


def _single_flights(replicas: Iterable[Replica]) -> list[tuple[Replica, Flight]]:
    return [
        (replica, flight)
        for replica in replicas
        for flight in replica.flights
        if len(flight.request.flights) == 1 and not flight.request.deaths
    ]
