"""A batch that is handed from computer to computer, each of which is lost at a random moment; used by test_lost_computers.

run on the first -> lose it -> resume elsewhere from the prefix -> ... -> the last one works to the end -> look at everything
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from runtime.objects.object_store import ObjectStore
from tests.chaos.lost_computer import LINE_BYTES, Computer, write_requests
from tests.runtime.object_service import ObjectService

# What becomes of the machines of a lost computer. with it: they were on it. nothing: it only sleeps, and cares for them later.
Fate = Literal["with it", "release by token", "release by stack", "dead-man", "nothing"]
FATES: tuple[Fate, ...] = ("release by token", "with it", "release by stack", "dead-man")
HEARTBEAT_MINUTES = 1.0
LONGEST_LIFE_S = 28.0
_LONGEST_END_S = 5.0
_PATIENCE_S = 120.0
_LAST_S = 400.0
# What the stub engine says; the number of the request is there four times, whichever computers have asked and taken over.
_ANSWER = re.compile(
    rb'\{"id":"batch_req_run-\d+([0-9a-f]{8})","custom_id":"request-(\d{9})","response":\{"status_code":200,'
    rb'"request_id":"(run-\d+)-([0-9a-f]{8})-\d+","body":\{"id":"\3-([0-9a-f]{8})","number":1.10000000000000000000001,'
    rb'"pad":"x{100}","usage":\{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12\}\}\},"error":null\}'
)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """when_s: seconds after the command was typed, or after its own first answers, or after the last answer of all."""

    fate: Fate
    after: Literal["start", "first answers", "last answer"]
    when_s: float


def draw_losses(seed: int, count: int) -> list[Loss]:
    """One computer falls asleep while it works, one is lost while it brings everything home, the others at any moment."""
    draw = random.Random(seed)
    losses = [
        Loss(fate=FATES[number % len(FATES)], after="start", when_s=draw.uniform(0.5, LONGEST_LIFE_S))
        for number in range(count - 1)
    ]
    draw.shuffle(losses)
    sleeper = Loss(fate="nothing", after="first answers", when_s=draw.uniform(1.5, 6))
    losses.insert(draw.randrange(max(1, count - 1)), sleeper)
    if count > 2:
        losses[-1] = Loss(fate=losses[-1].fate, after="last answer", when_s=draw.uniform(0, _LONGEST_END_S))
    return losses


class Relay:
    """told: what happened, for the report; broken: every promise that was."""

    def __init__(self, folder: Path, service: ObjectService, seed: int, *, losses: int, megabytes: float) -> None:
        self.folder, self.service = folder, service
        self.lines = int(megabytes * 1_000_000 // LINE_BYTES)
        self.bucket = service.make_bucket()
        self.store: ObjectStore = service.open(f"s3://{self.bucket}")
        self.losses = draw_losses(seed, losses)
        self.told = [f"seed {seed}, {self.lines:,} requests of {megabytes:g} MB"]
        self.broken: list[str] = []
        self.computers: list[Computer] = []
        self.gained = 0
        self._office = self._make_computer("office")
        self._releases: list[tuple[Computer, subprocess.Popen[bytes]]] = []
        self._asleep: Computer | None = None
        self._woken: tuple[Computer, int] | None = None
        self._began = time.monotonic()

    def play(self) -> None:
        write_requests(self.folder / "source", self.lines)
        self.store.upload(self.folder / "source", "in.jsonl")
        for number, loss in enumerate(self.losses):
            self._lose(self._start(f"run-{number}"), loss)
        last = self._start(f"run-{len(self.losses)}")
        self._wake()
        code = last.started[0].wait(_LAST_S)
        self.tell(f"{last.run} ended with {code}; it began with {last.taken_over()} answers")
        self._expect(code == 0, f"{last.run}: {last.typed()[-3000:]}")
        self._count(last)
        redone = self.gained - self.lines
        self.tell(f"{redone} answers were had twice, {redone / len(self.losses):.0f} a loss")
        self._look()

    def tell(self, what: str) -> None:
        self.told.append(f"{time.monotonic() - self._began:6.1f} s  {what}")

    def close(self) -> None:
        for computer in [*self.computers, self._office]:
            computer.send(signal.SIGKILL)
            for started in computer.started:
                started.wait(10)

    # Losing one after the other

    def _make_computer(self, run: str) -> Computer:
        return Computer(self.folder / run, self.folder / "account", self.service, self.bucket, run)

    def _start(self, run: str) -> Computer:
        computer = self._make_computer(run)
        self.computers.append(computer)
        if self._read_owner() is None:
            # Lost before it took the prefix: there is nothing yet to resume.
            computer.begin(self.bucket, heartbeat_minutes=HEARTBEAT_MINUTES)
        else:
            computer.go_on()
        return computer

    def _lose(self, computer: Computer, loss: Loss) -> None:
        began = time.monotonic()
        self._wake()
        self._wait_for(loss.after, computer)
        time.sleep(max(0.0, loss.when_s - (time.monotonic() - began if loss.after == "start" else 0.0)))
        alive = computer.is_at_work()
        lived_s = time.monotonic() - began
        if loss.fate == "nothing":
            told = computer.send(signal.SIGSTOP)
            self._asleep = computer
        else:
            told = computer.send(signal.SIGKILL, with_machines=loss.fate == "with it")
        owner = self._read_owner()
        self._count(computer)
        self.tell(
            f"{computer.run} {'falls asleep' if loss.fate == 'nothing' else 'is lost'} after {lived_s:.1f} s "
            f"({loss.when_s:.1f} s after {loss.after}), {told} processes; it began with {computer.taken_over()} answers and "
            f"has {computer.count_answers()}; machines {len(computer.live_machines())}, {loss.fate}; "
            f"owner {owner and owner['run']}"
        )
        self._expect(alive, f"{computer.run} had come to its end before it was lost: {computer.typed()[-2000:]}")
        self._release(computer, loss.fate)

    def _wait_for(self, moment: str, computer: Computer) -> None:
        if moment == "first answers":
            self._wait(lambda: computer.taken_over() is not None, computer)
            self._wait(lambda: computer.count_answers() > (computer.taken_over() or 0) + 100, computer)
        if moment == "last answer":
            self._wait(lambda: computer.count_answers() >= self.lines, computer, _LAST_S)

    def _wake(self) -> None:
        """Let the sleeper go on, some seconds after another computer has taken the prefix over."""
        if self._asleep is None:
            return
        sleeper, self._asleep = self._asleep, None
        self._wait(lambda: (self._read_owner() or {}).get("run") != sleeper.run, self.computers[-1])
        time.sleep(3)
        self._woken = (sleeper, len(self.service.proxy.asked))
        sleeper.send(signal.SIGCONT)
        self.tell(f"{sleeper.run} wakes up; the prefix is {(self._read_owner() or {}).get('run')}'s")

    def _release(self, computer: Computer, fate: Fate) -> None:
        """From another computer, while the next one is at work already."""
        machines = computer.live_machines()
        if fate == "release by token" and machines:
            self._releases.append((computer, self._office.start("release", machines[0].split("-")[1], "--force")))
        elif fate == "release by stack" and machines:
            self._releases.append((computer, self._office.start("release", computer.run)))

    # Looking

    def _count(self, computer: Computer) -> None:
        """What it has answered itself, until now."""
        self.gained += computer.count_answers() - (computer.taken_over() or 0)

    def _look(self) -> None:
        for computer, release in self._releases:
            code = release.wait(_PATIENCE_S)
            left = computer.live_machines()
            self.tell(f"release of {computer.run} from elsewhere ended with {code}")
            self._expect((code, left) == (0, []), f"release of {computer.run}: {code}, {left}: {self._office.typed()}")
        self._look_at_sleeper()
        for computer in self.computers:
            ended = self._holds(lambda: not computer.live_machines(), 60 * HEARTBEAT_MINUTES + 30)  # noqa: B023
            self._expect(ended, f"{computer.run} has left {computer.live_machines()}")
        reaped = self._office.inv("reap", "--cloud", "local")
        self._expect(reaped.returncode == 0, f"reap: {reaped.stderr}")
        left = sum(len(each.live_machines()) for each in self.computers)
        self.tell(f"machines left: {left}; reap says: {(reaped.stdout + reaped.stderr).strip()}")
        self._look_at_results()

    def _look_at_sleeper(self) -> None:
        if self._woken is None:
            return
        sleeper, asked = self._woken
        code = sleeper.started[0].wait(_PATIENCE_S)
        status = sleeper.wait_for_end(sleeper.run, _PATIENCE_S)
        own = f"-{sleeper.run}/"
        writes = [each.path for each in self.service.proxy.asked[asked:] if each.method != "GET" and own in each.path]
        late = [each for each in writes if each.endswith(".jsonl")]
        self.tell(
            f"{sleeper.run}, which slept, ended with {code}: {status['state']}, {status['released']}, {status['message']}; "
            f"{len(late)} parts were written to its own folder since"
        )
        self._expect(
            '"sealing_ended"' in sleeper.events(sleeper.run), "the sleeper was not told that it lost the prefix"
        )
        self._expect(status["released"] == "verified", f"the sleeper's release: {status}")
        self._expect(code != 0, "the sleeper called its results delivered")

    def _look_at_results(self) -> None:
        found = [self.store.read(f"out/{name}") for name in ("output.jsonl", "error.jsonl")]
        lines = [line for each in found if each for line in each[0].splitlines()]
        numbers = [int(json.loads(line)["custom_id"].rpartition("-")[2]) for line in lines]
        self._expect(sorted(numbers) == list(range(self.lines)), f"{len(lines)} lines with {len(set(numbers))} ids")
        strange = [line for number, line in zip(numbers, lines, strict=True) if not _is_answer(line, number)]
        self._expect(not strange, f"{len(strange)} answers are not the engine's, such as {strange[:1]}")
        owner = self._read_owner() or {}
        self.tell(f"{len(lines)} lines, {len(set(numbers))} ids, owner {owner.get('run')}, epoch {owner.get('epoch')}")
        self._expect(owner.get("ended") is not None, f"the prefix has no end: {owner}")
        parts = [each.key for each in self.store.list("out/_leasehold") if "/parts/" in each.key]
        self._expect(not parts, f"parts are left: {parts[:3]}")

    def _read_owner(self) -> dict[str, Any] | None:
        found = self.store.read("out/_leasehold/owner.json")
        return json.loads(found[0]) if found else None

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.tell(f"BROKEN {what}")
            self.broken.append(what)

    def _wait(self, condition: Callable[[], Any], computer: Computer, timeout_s: float = _PATIENCE_S) -> None:
        holds = self._holds(condition, timeout_s, stop=lambda: not computer.is_at_work())
        assert holds, "\n".join([*self.told, computer.typed()[-3000:]])

    def _holds(
        self, condition: Callable[[], Any], timeout_s: float, *, stop: Callable[[], bool] = lambda: False
    ) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or stop():
                return bool(condition())
            time.sleep(0.1)
        return True


def _is_answer(line: bytes, number: int) -> bool:
    found = _ANSWER.fullmatch(line)
    return found is not None and {int(found[2]), *(int(found[group], 16) for group in (1, 4, 5))} == {number}
