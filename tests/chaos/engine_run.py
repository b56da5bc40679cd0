"""One random run: starts a job, waits for its moment, kills, lets it end in its way, then looks at everything that must hold."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.account import open_account
from tests.chaos.scenario import Scenario
from tests.chaos.verdict import find_blind_creates, find_lost_or_doubled
from tests.journeys.workshop import Workshop, end_hard

RUN = "chaos"
_MOMENT_S = 40.0
_END_S = 60.0
_COMMAND_S = 100.0
_EXITS = {0, 1, 4, 6, 7, 8, 10, 11, 12, 130, -9}


class EngineRun:
    """told: what happened, for the report of a failure; broken: every promise that was."""

    def __init__(self, workshop: Workshop, scenario: Scenario) -> None:
        self.workshop = workshop
        self.scenario = scenario
        self.account = open_account(scenario.cloud, workshop)
        self.told: list[str] = []
        self.broken: list[str] = []
        self.started_at = time.time()
        self.killed: list[str] = []
        self.folder = workshop.run_dir(RUN)

    def play(self) -> None:
        watch = ProofWatch(self)
        watch.start()
        try:
            self._start()
            self._kill_at_moment()
            time.sleep(self.scenario.pause_s)
            self._end()
            self._look()
        finally:
            watch.stop()
            self.account.close()

    def tell(self, what: str) -> None:
        self.told.append(f"{time.time() - self.started_at:6.1f} s  {what}")

    def _start(self) -> None:
        self.account.set_fault(self.scenario.fault)
        self.run = self.workshop.start("run", str(self._write_job()), "--run", RUN, "--yes")
        self.tell(f"started; fault {self.scenario.fault or 'none'}")

    def _write_job(self) -> Path:
        scenario, folder = self.scenario, self.workshop.folder
        with (folder / "chaos.jsonl").open("w") as file:
            for number in range(scenario.lines):
                body = {
                    "model": self.account.model,
                    "max_tokens": 300 if number < scenario.slow_lines else 8,
                    "messages": [{"role": "user", "content": f"Shelf {number} is too high."}],
                }
                line = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
                file.write(json.dumps(line) + "\n")
        machines = {"replicas": scenario.replicas, "min_replicas": 1, "candidates": [self.account.candidate]}
        job: dict[str, Any] = {
            "version": 1,
            "name": "chaos",
            "input": "chaos.jsonl",
            "endpoint": "/v1/chat/completions",
            "template": self.account.template,
            "machines": machines,
            "limits": {"max_usd": 25, "max_hours": scenario.lease_s / 3600},
        }
        (folder / "chaos.yaml").write_text(json.dumps(job))
        return folder / "chaos.yaml"

    # Killing

    def _kill_at_moment(self) -> None:
        if not self._wait(self._is_moment, _MOMENT_S, stop=lambda: self._is_over() or self.run.poll() is not None):
            self.tell(f"the moment never came: {self.scenario.moment}")
        time.sleep(self.scenario.delay_s)
        for victim in self.scenario.victims:
            self._kill(victim)
            time.sleep(self.scenario.gap_s)

    def _is_moment(self) -> bool:
        events = self.workshop.events(RUN)
        match self.scenario.moment:
            case "before creating":
                return (self.folder / "lifecycle.json").exists()
            case "creating":
                path = self.folder / "intents.jsonl"
                return path.exists() and path.stat().st_size > 0
            case "booting":
                return "machine_created" in events
            case "dispatching":
                progress = self.workshop.progress(RUN)
                return progress is not None and progress["request_counts"]["completed"] > 0
            case "destroying":
                return "lease_revoked" in events
            case "sweeping":
                return "machine_gone" in events
        raise AssertionError(self.scenario.moment)

    def _kill(self, victim: str) -> None:
        deadline = time.monotonic() + 0.5
        while not (found := self._find(victim)) and time.monotonic() < deadline and not self._is_over():
            time.sleep(0.05)
        for process in found[: 1 if victim in ("machine", "tunnel") else None]:
            end_hard(process)
            self.killed.append(victim)
        self.tell(f"killed {victim} {[process.pid for process in found]}" if found else f"no {victim} to kill")

    def _find(self, victim: str) -> list[psutil.Process]:
        if victim == "machine":
            return [psutil.Process(pid) for pid in self.account.keepers() if psutil.pid_exists(pid)]
        if victim == "follower":
            return [psutil.Process(self.run.pid)] if self.run.poll() is None else []
        return [process for process in self.workshop.ours() if is_victim(victim, read_words(process))]

    # Ending

    def _end(self) -> None:
        if self.scenario.ending == "wait":
            self._wait_for_quiet()
        else:
            self._release(*(["--force"] if self.scenario.ending == "force" else []))

    def _wait_for_quiet(self) -> None:
        """Nobody helps: the life cycle, the dispatcher or the dead-man ends it, at the latest when the lease has expired."""
        limit_s = self.scenario.lease_s + 25
        self._wait(lambda: not self._left() and self._is_over(), limit_s, stop=self._is_past_expiry)
        self.tell(f"over: {self._is_over()}; left: {self._left()}")
        if self._left() and (self.scenario.cloud != "local"):
            # Where the dead-man was killed with its machine, or there is none, the reaper is the one that ends it.
            self._wait(lambda: not self._left(), 8 if self.account.has_dead_man else 1)
            reaped = self._command("reap", "--yes", LEASEHOLD_REAP_GRACE_S="0")
            self._expect(reaped.returncode in (0, 12), f"reap ended with {reaped.returncode}: {reaped.stderr[-800:]}")

    def _is_past_expiry(self) -> bool:
        """Past the lease's, and past the dispatcher's own end of the batch with its release."""
        try:
            expires_at = json.loads((self.folder / "lease.json").read_bytes())["expires_at"]
        except (OSError, ValueError):
            expires_at = self.started_at + self.scenario.lease_s + 5
        return time.time() > float(expires_at) + 6

    def _release(self, *flags: str) -> None:
        if not self.folder.exists():
            self.tell("nothing to release")
            return
        released = self._command("release", RUN, *flags)
        self.tell(f"release {' '.join(flags)} ended with {released.returncode}: {released.stderr[-600:]}")
        left = self.account.live()
        self._expect(released.returncode == 0, f"release ended with {released.returncode}: {released.stderr[-1500:]}")
        self._expect(released.returncode != 0 or not left, f"release said verified, but {left} lived")
        self._expect("Traceback" not in released.stderr, f"release: {released.stderr[-2000:]}")

    def _command(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.workshop.inv(*arguments, timeout_s=_COMMAND_S, **more)

    # Looking

    def _look(self) -> None:
        self._expect(self._wait(lambda: not self._left(), 15), f"machines are left: {self._left()}")
        self._expect(self._wait(lambda: not self._processes(), 15), f"processes are left: {self._processes()}")
        harm = self.account.find_harm()
        self._expect(not harm, harm)
        life_s = self.account.longest_life_s()
        self._expect(life_s < self.scenario.lease_s + 30, f"a machine was billed for {life_s:.0f} s")
        self.broken += find_lost_or_doubled(self.folder, self.scenario.lines)
        self.broken += find_blind_creates(self.folder)
        keys = self.account.list_keys()
        self._expect(not keys or self.scenario.ending == "wait", f"keys are left in the account: {keys}")
        self._look_at_exit()

    def _look_at_exit(self) -> None:
        code = self.run.wait(20)
        self.tell(f"run ended with {code}")
        self._expect(code in _EXITS, f"run ended with {code}")
        self._expect((code == -9) == ("follower" in self.killed), f"run ended with {code}")
        typed = (self.workshop.folder / "typed.log").read_text()
        self._expect("Traceback" not in typed, typed[-3000:])
        if not self._is_over():
            self._expect(not self._must_be_over(), "nobody said the last word, though nobody who can was killed")
            return
        status = self.workshop.status(RUN)
        self.tell(f"status: {status['state']}, {status['released']}, {status['exit_code']}: {status['message']}")
        unverified = status["released"] != "verified"
        self._expect((status["exit_code"] == 12) == unverified, f"exit {status['exit_code']} and {status['released']}")
        self._expect(not unverified, f"the clouds answered, but {status['message']}")

    def _must_be_over(self) -> bool:
        """Whether somebody lived who says the last word: a release, the life cycle, or the dispatcher in its place."""
        harmless = {"life cycle", "follower", "tunnel"} if self.scenario.moment != "before creating" else {"follower"}
        return self.scenario.ending != "wait" or set(self.killed) <= harmless

    def _expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.tell(f"BROKEN {what}")
            self.broken.append(what)

    def _left(self) -> list[str]:
        return self.account.live()

    def _processes(self) -> list[str]:
        found = []
        for process in self.workshop.ours():
            try:
                if not self.account.is_strange(process):
                    found.append(f"{process.pid} {' '.join(process.cmdline())[:160]}")
            except psutil.Error:
                continue
        return found

    def _is_over(self) -> bool:
        try:
            return self.workshop.status(RUN)["ended_at"] is not None
        except (OSError, ValueError):
            return False

    def _wait(self, condition: Any, timeout_s: float, *, stop: Any = lambda: False) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or stop():
                return bool(condition())
            time.sleep(0.05)
        return True


class ProofWatch(threading.Thread):
    """At the very moment when a run calls its release verified, nothing of it may be there any more."""

    def __init__(self, run: EngineRun) -> None:
        super().__init__(daemon=True, name="proof-watch")
        self._run = run
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(0.03):
            try:
                released = self._run.workshop.status(RUN)["released"]
            except (OSError, ValueError):
                continue
            if released == "verified":
                left = self._run.account.live()
                if left:
                    self._run.broken.append(f"released was called verified while {left} lived")
                return

    def stop(self) -> None:
        self._ending.set()
        self.join(10)


def read_words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


def is_victim(victim: str, words: list[str]) -> bool:
    program = Path(words[0]).name
    match victim:
        case "life cycle":
            return "stacks.lifecycle" in words
        case "pulumi":
            return program == "pulumi" and bool({"up", "destroy"} & set(words))
        case "provider":
            return "pulumi.dynamic" in words
        case "plugin":
            return "toolchain.command_plugin" in words or program == "pulumi-resource-command"
        case "program":
            return any("pulumi-language-python-exec" in word for word in words)
        case "dispatcher":
            return "runtime.dispatcher" in words and "--stop" not in words
        case "tunnel":
            return program == "ssh" and "-L" in words
        case "orphan release":
            return "stacks.lifecycle.orphan_release" in words
    raise AssertionError(victim)
