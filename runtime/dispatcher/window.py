"""How many requests one replica may have in flight: follows the engine's own queue, or throughput where it tells nothing.

Pure (time comes in); fed by the replica's monitor and by the sender. Latency is never an input: at the knee it must rise.
"""

from __future__ import annotations

from runtime.engines.engine_load import EngineLoad

START_SIZE = 32
LARGEST_SIZE = 2048
QUEUE_SHARE = 0.07  # what the engine should have waiting, as a share of what it runs
FULL_CACHE = 0.95
BUSY_FACTOR = 0.7
_IDLE_POLLS = 4


class Window:
    """`size` is the limit. on_load is called once or a few times a second, on_answer and on_busy once a request."""

    def __init__(self, *, cap: int = 0) -> None:
        self.cap = cap or LARGEST_SIZE
        self.size = min(START_SIZE, self.cap)
        self._follows_engine = False
        self._is_ahead_of_engine = False  # what we have in flight is not in the engine, as far as it tells
        self._is_settled = False
        self._idle_polls = 0
        self._preemptions = -1.0
        self._cut_at = float("-inf")
        self._cohort = _Cohorts()

    @property
    def is_searching(self) -> bool:
        """Whether the knee is not found yet, so that it is worth asking the engine more often."""
        return self._follows_engine and not self._is_settled and self.size < self.cap

    def on_load(self, load: EngineLoad, *, in_flight: int) -> None:
        """Steer so that the engine has a few requests waiting: more only cost memory, none leaves it idle."""
        self._follows_engine = True
        wanted = max(1.0, QUEUE_SHARE * load.running)
        preempted = 0 <= self._preemptions < load.preemptions
        self._preemptions = load.preemptions
        is_full = in_flight >= 0.9 * self.size
        self._set_ahead(is_full and load.waiting < wanted / 2 and not self._reaches_engine(load, in_flight))
        if preempted or load.cache_use > FULL_CACHE:
            self._settle(min(self.size, int(0.9 * max(in_flight, 1))))
        elif load.waiting > wanted:
            excess = load.waiting - wanted
            step = excess if load.waiting > 2 * wanted else excess / 2
            self._settle(int(min(self.size, in_flight) - step))
        elif load.waiting < wanted / 2 and is_full and not self._is_ahead_of_engine:
            self._grow()
        else:
            self._idle_polls = 0

    def on_answer(self, *, now: float, in_flight: int) -> None:
        """Where the engine's metrics say nothing: grow while that makes answers come faster, stay where it does not."""
        if not self._follows_engine or self._is_ahead_of_engine:
            self.size = self._bound(self._cohort.on_answer(self.size, now=now, is_full=in_flight >= 0.9 * self.size))

    def on_busy(self, *, sent_at: float, now: float) -> bool:
        """429 or 503: cut once for all the requests that were sent before the cut; whether this call did it."""
        if sent_at <= self._cut_at:
            return False
        self._cut_at = now
        self._settle(int(self.size * BUSY_FACTOR))
        self._cohort.settle()
        return True

    def on_restart(self) -> None:
        """The engine was gone and is back: feel the way again."""
        self.size = min(self.size, START_SIZE, self.cap)
        self._is_settled = False
        self._idle_polls = 0
        self._preemptions = -1.0
        self._is_ahead_of_engine = False
        self._cohort = _Cohorts()

    def _settle(self, size: int) -> None:
        self.size = self._bound(size)
        self._is_settled = True
        self._idle_polls = 0

    def _grow(self) -> None:
        self._idle_polls += 1
        if self._idle_polls > _IDLE_POLLS:
            self._is_settled = False  # the knee has moved up
        self.size = self._bound(self.size + max(1, self.size // 16) if self._is_settled else self.size * 2)

    def _set_ahead(self, is_ahead: bool) -> None:
        if self._is_ahead_of_engine and not is_ahead:
            self._cohort = _Cohorts()
        self._is_ahead_of_engine = is_ahead

    def _reaches_engine(self, load: EngineLoad, in_flight: int) -> bool:
        """What we sent is in the engine, not in front of it: there more may pile up (a busy API process) or help (a long way)."""
        return in_flight <= 2 * (load.running + load.waiting) + START_SIZE / 2

    def _bound(self, size: int) -> int:
        return max(1, min(size, self.cap))


class _Cohorts:
    """Compares answers per second before and after each step; a step is kept only if it made them come faster."""

    SHORTEST_S = 0.25
    STEP_GAIN = 1.05
    PROBE_EVERY = 8

    def __init__(self) -> None:
        self._answers = 0
        self._began_at = -1.0
        self._rate = 0.0
        self._before = 0  # the size before the step under test, 0: none is
        self._is_transition = True
        self._quiet_cohorts = 0
        self._is_growing = True

    def settle(self) -> None:
        """The size was cut from outside: what was measured before says nothing about it."""
        self._is_growing = False
        self._before = 0
        self._quiet_cohorts = 0
        self._restart(-1.0)
        self._is_transition = True
        self._rate = 0.0

    def on_answer(self, size: int, *, now: float, is_full: bool) -> int:
        """The size to use from now on."""
        if self._began_at < 0 or not is_full:
            self._restart(now)
            return size
        self._answers += 1
        if self._answers < size or now - self._began_at < self.SHORTEST_S:
            return size
        rate = self._answers / (now - self._began_at)
        self._restart(now)
        if self._is_transition:
            self._is_transition = False
            return size
        return self._judge(size, rate)

    def _judge(self, size: int, rate: float) -> int:
        is_step = self._before > 0
        if is_step and rate <= self._rate * self.STEP_GAIN:  # it brought nothing: go back
            size, self._before = self._before, 0
            self._is_growing, self._is_transition = False, True
            return size
        self._quiet_cohorts += 1
        if not is_step and not self._is_growing and self._quiet_cohorts < self.PROBE_EVERY:
            self._rate = rate
            return size
        self._quiet_cohorts = 0
        self._is_growing = self._is_growing or is_step
        self._rate, self._before, self._is_transition = rate, size, True
        return size * 2 if self._is_growing else size + max(1, size // 4)

    def _restart(self, now: float) -> None:
        self._answers = 0
        self._began_at = now
