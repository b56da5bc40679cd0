"""The process behind `./inv` once all is installed: runs tasks.py and turns what goes wrong into text.

This is the one place where an error becomes a message and an exit code.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from invoke.collection import Collection
from invoke.exceptions import Exit
from invoke.parser.context import ParserContext
from invoke.program import Program

from schemas.errors import LeaseholdError
from toolchain.arguments import UsageError, describe_positionals, translate
from toolchain.failure import ToolchainError
from toolchain.version import find_version

ROOT = Path(__file__).resolve().parents[1]

USAGE_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130
BROKEN_PIPE_EXIT_CODE = 141  # as a shell reports it: 128 + SIGPIPE


def main(typed: list[str]) -> NoReturn:
    try:
        try:
            run(typed)
        finally:
            sys.stdout.flush()
    except UsageError as error:
        _end(f"inv: {error}", USAGE_EXIT_CODE)
    except LeaseholdError as error:
        _end(str(error), error.exit_code)
    except ToolchainError as error:
        _end(f"inv: {error}", 1)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED_EXIT_CODE)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE_EXIT_CODE)
    except Exception as error:
        _end(_describe_crash(error), 1)
    sys.exit(0)


def run(typed: list[str]) -> None:
    """Run what was typed; raises whatever the task raises."""
    program = InvProgram(namespace=Collection.from_module(_load_tasks()), name="inv", binary="./inv")
    program.create_config()
    # Of a collection of its own: invoke takes the help texts out of a task when it makes a context of it.
    contexts = {each.name: each for each in Collection.from_module(_load_tasks()).to_contexts() if each.name}
    core = ParserContext(args=[*program.core_args(), *program.task_args()])
    # `--list` and `-l` are no core options of a program with a fixed collection, but people know them from invoke.
    words = ["--help" if word in ("-l", "--list") else word for word in typed[:1]] + typed[1:]
    program.run(["inv", *translate(words, core, contexts)])


class InvProgram(Program):
    """invoke's program with our words, and with interrupts left to `main`."""

    def print_version(self) -> None:
        sys.stdout.write(f"Leasehold {find_version()}\n")

    def print_help(self) -> None:
        sys.stdout.write("Usage: ./inv TASK [what it works on] [flags]\n       ./inv TASK --help\n\n")
        sys.stdout.write("Tasks:\n\n")
        self.print_columns(self._make_pairs(self.scoped_collection))

    def print_task_help(self, name: str) -> None:
        task = self.parser.contexts[name]
        positionals = describe_positionals(name)
        sys.stdout.write(f"Usage: ./inv {name}{' ' + positionals if positionals else ''} [flags]\n\n")
        for line in (self.collection[name].__doc__ or "").strip().splitlines():
            sys.stdout.write(f"{'  ' + line.strip() if line.strip() else ''}\n")
        if flags := task.help_tuples():
            sys.stdout.write("\nFlags:\n\n")
            self.print_columns(flags)

    def execute(self) -> None:
        try:
            super().execute()
        except KeyboardInterrupt:
            # invoke would end with 1 here.
            raise Exit("interrupted", INTERRUPTED_EXIT_CODE) from None


def _load_tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tasks", ROOT / "tasks.py")
    if spec is None or spec.loader is None:
        raise ToolchainError(f"{ROOT / 'tasks.py'} is missing; is the checkout complete?")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tasks"] = module
    spec.loader.exec_module(module)
    return module


def _describe_crash(error: Exception) -> str:
    head = f"inv: unexpected {type(error).__name__}: {error}"
    details = "".join(traceback.format_exception(error))
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for home in (Path(os.environ.get("LEASEHOLD_HOME") or ROOT / ".leasehold"), Path(tempfile.gettempdir())):
        try:
            home.mkdir(parents=True, exist_ok=True)
            (home / name).write_text(details)
            (home / name).chmod(0o600)
        except OSError:
            continue
        return f"{head}\n  The details are in {home / name}."
    return head


def _end(message: str, code: int) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
