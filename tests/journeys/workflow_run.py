"""Runs the shell steps of a workflow as a runner does: their bash, files for outputs and environment, conditions, cancelling.

Only what our workflows use is known; an expression or a condition that is not fails the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")
# When a workflow is cancelled, a runner sends SIGINT, then SIGTERM, then it kills all that is left of the step.
RUNNERS_PATIENCE_S = (7.5, 2.5)


class StepResult:
    def __init__(self, name: str, code: int, output: str) -> None:
        self.name = name
        self.code = code
        self.output = output

    def __repr__(self) -> str:
        return f"step {self.name!r} ended with {self.code}:\n{self.output}"


class JobRun:
    """One job of a workflow on one runner. context: what expressions stand for; secrets and variables that are not there are ""."""

    def __init__(
        self,
        workflow: Path,
        job: str,
        *,
        folder: Path,
        temp: Path,
        environ: Mapping[str, str],
        context: Mapping[str, str],
    ) -> None:
        loaded = YAML(typ="safe").load(workflow.read_text())
        self.job: dict[str, Any] = loaded["jobs"][job]
        self.folder = folder
        self.context = dict(context)
        temp.mkdir(parents=True)
        self.summary = temp / "summary.md"
        self._temp = temp
        self._environ = {**environ, "RUNNER_TEMP": str(temp), "GITHUB_STEP_SUMMARY": str(self.summary), "CI": "true"}
        self.results: list[StepResult] = []
        self.skipped: list[str] = []
        self.used: list[str] = []
        self.is_cancelled = False
        self.is_gone = False
        self.patience_s = RUNNERS_PATIENCE_S
        self._environ |= {name: self.fill(value) for name, value in self.job.get("env", {}).items()}

    def run(self, *, cancel_at: str = "", when: Callable[[], None] = lambda: None, use: Any = None) -> JobRun:
        """All steps in order; the step `cancel_at` is cancelled once `when` returns. use: stands in for actions.

        A runner that `when` has set to be gone takes no further step.
        """
        for step in self.job["steps"]:
            if self.is_gone:
                break
            name = step.get("name") or step.get("uses", "")
            if not self._is_due(step):
                self.skipped.append(name)
            elif "uses" in step:
                self.used.append(step["uses"])
                if use is not None:
                    self._note(name, *use(step, self))
            else:
                self._note(name, *self._run_step(step, when if cancel_at and name == cancel_at else None))
                self._read_back(step)
        return self

    def step(self, name: str) -> StepResult:
        return next(each for each in self.results if each.name == name)

    @property
    def failed(self) -> list[StepResult]:
        return [each for each in self.results if each.code != 0]

    def outputs(self) -> dict[str, str]:
        return {name: self.fill(value) for name, value in self.job.get("outputs", {}).items()}

    def fill(self, text: Any) -> str:
        return _EXPRESSION.sub(lambda match: self._evaluate(match[1]), str(text))

    def environment_of(self, step: Mapping[str, Any]) -> dict[str, str]:
        return self._environ | {name: self.fill(value) for name, value in step.get("env", {}).items()}

    def _evaluate(self, name: str) -> str:
        if name in self.context:
            return self.context[name]
        if name.startswith("env."):
            return self._environ.get(name.removeprefix("env."), "")
        if name.startswith(("secrets.", "steps.", "vars.")):
            return ""
        raise AssertionError(f"the workflow speaks of {name}, which this test does not give it")

    def _is_due(self, step: Mapping[str, Any]) -> bool:
        condition = step.get("if", "success()")
        if condition == "always()":
            return True
        if condition == "success() || failure()":
            return not self.is_cancelled
        assert condition == "success()", f"the condition {condition!r} is not known here"
        return not self.is_cancelled and not self.failed

    def _note(self, name: str, code: int, output: str) -> None:
        self.results.append(StepResult(name, code, output))

    def _run_step(self, step: Mapping[str, Any], when: Callable[[], None] | None) -> tuple[int, str]:
        script = self._temp / f"step-{len(self.results)}.sh"
        script.write_text(self.fill(step["run"]))
        files = {"GITHUB_ENV": str(self._temp / "env"), "GITHUB_OUTPUT": str(self._temp / "output")}
        for path in files.values():
            Path(path).write_text("")
        log = self._temp / f"step-{len(self.results)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-e", str(script)],
                env={**self.environment_of(step), **files},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if when is not None:
            self.is_cancelled = True
            when()
            cancel(process, self.patience_s)
        code = process.wait(120)
        return code, log.read_text()

    def _read_back(self, step: Mapping[str, Any]) -> None:
        self._environ |= _read_pairs(self._temp / "env")
        for name, value in _read_pairs(self._temp / "output").items():
            self.context[f"steps.{step['id']}.outputs.{name}"] = value


def cancel(process: subprocess.Popen[bytes], patiences_s: tuple[float, float]) -> None:
    """What a runner does to a step of a workflow that is cancelled; the signals go to the step's own process alone."""
    step = psutil.Process(process.pid)
    tree = [step, *step.children(recursive=True)]
    for number, patience_s in zip((signal.SIGINT, signal.SIGTERM), patiences_s, strict=True):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    for each in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()


def _read_pairs(path: Path) -> dict[str, str]:
    """NAME=value, or NAME<<END and lines until END."""
    pairs: dict[str, str] = {}
    lines = iter(path.read_text().splitlines())
    for line in lines:
        name, equals, value = line.partition("=")
        if equals and "<<" not in name:
            pairs[name] = value
            continue
        name, _, end = line.partition("<<")
        rest = []
        for each in lines:
            if each == end:
                break
            rest.append(each)
        else:
            raise AssertionError(f"{name} has no end")
        pairs[name] = "\n".join(rest)
    return pairs
