"""From what a person types to what invoke can parse: positionals become flags, mistakes become one sentence; pure.

`command_line` calls it with the tasks' own flags, so that a value is never taken for a positional.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable, Mapping, Sequence

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from toolchain.positionals import POSITIONALS

_HELP = ("-h", "--help")
_NUMBERS = {int: "a whole number", float: "a number"}


class UsageError(Exception):
    """What was typed cannot be meant; the text is for the person who typed it."""


def translate(typed: Sequence[str], core: ParserContext, tasks: Mapping[str, ParserContext]) -> list[str]:
    """Return invoke's arguments; what stands after `--` becomes one shell-quoted text, the context's `remainder`."""
    words, remainder = _split_remainder(list(typed))
    options, words = _take_core_options(words, core)
    if not words:
        return options
    name, *words = words
    if name == "help" and "help" not in tasks:
        return _translate_help(words, tasks)
    if name not in tasks:
        raise UsageError(f"there is no task {name!r}.{_suggest(name, tasks)} ./inv --list shows them all.")
    if set(_HELP) & set(words):
        return ["--help", name]
    return [*options, name, *_translate_task(name, words, tasks[name]), *remainder]


def describe_positionals(task: str) -> str:
    """Return the positionals as a usage line shows them: JOB..., [RUN]."""
    return " ".join(_describe(spec) for spec in POSITIONALS.get(task, ()))


def _split_remainder(words: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], ["--", shlex.join(words[at + 1 :])]


def _take_core_options(words: list[str], core: ParserContext) -> tuple[list[str], list[str]]:
    """Take invoke's own options, which come before the task."""
    taken: list[str] = []
    while words and words[0].startswith("-"):
        option = words.pop(0)
        flag = option.partition("=")[0]
        if flag not in core.flags:
            raise UsageError(f"there is no option {flag}.{_suggest(flag, core.flags)} ./inv --help shows how to start.")
        taken.append(option)
        argument = core.flags[flag]
        takes_next = argument.takes_value and "=" not in option and words and not words[0].startswith("-")
        if takes_next:
            taken.append(words.pop(0))
    return taken, words


def _translate_help(words: list[str], tasks: Mapping[str, ParserContext]) -> list[str]:
    if words and words[0] not in tasks:
        raise UsageError(f"there is no task {words[0]!r}.{_suggest(words[0], tasks)} ./inv --list shows them all.")
    return ["--help", *words[:1]]


def _translate_task(name: str, words: list[str], task: ParserContext) -> list[str]:
    flags: list[str] = []
    values: list[str] = []
    given: set[str] = set()
    while words:
        word = words.pop(0)
        if _is_flag(word):
            flag, argument = _translate_flag(name, word, words, task)
            flags.append(flag)
            given.add(_long_name(argument))
        else:
            values.append(word)
    return [*flags, *_place_positionals(name, values, given, task)]


def _translate_flag(name: str, word: str, words: list[str], task: ParserContext) -> tuple[str, Argument]:
    """Return one flag with its value joined to it; takes the value from `words` where it is the next one."""
    flag, joined, value = word.partition("=")
    argument = _find_argument(flag, task)
    if argument is None:
        known = [*task.flags, *task.inverse_flags]
        raise UsageError(f"{name} has no flag {flag}.{_suggest(flag, known)} ./inv {name} --help shows its flags.")
    if not argument.takes_value:
        if joined:
            raise UsageError(f"{flag} of {name} takes no value.")
        return flag if flag in task.inverse_flags else f"--{_long_name(argument)}", argument
    if not joined and words and not _is_flag(words[0]):
        value, joined = words.pop(0), "="
    if not joined and not argument.optional:
        raise UsageError(f"{flag} of {name} needs a value.")
    if joined:
        _check_number(name, flag, value, argument)
    return f"--{_long_name(argument)}{joined}{value}", argument


def _find_argument(flag: str, task: ParserContext) -> Argument | None:
    # Short names are aliases, which only `in` and `[]` of invoke's dictionaries see.
    name = task.inverse_flags.get(flag, flag)
    return task.flags[name] if name in task.flags else None  # noqa: SIM401


def _check_number(name: str, label: str, value: str, argument: Argument) -> None:
    expected = _NUMBERS.get(argument.kind)
    if expected is None:
        return
    try:
        argument.kind(value)
    except ValueError:
        raise UsageError(f"{label} of {name} needs {expected}, not {value!r}.") from None


def _place_positionals(name: str, values: list[str], given: set[str], task: ParserContext) -> list[str]:
    """Give each value to the next positional that no flag has filled."""
    placed: list[str] = []
    for spec in POSITIONALS.get(name, ()):
        parameter = spec.rstrip("?+*")
        if spec.endswith(("+", "*")):
            placed += [f"--{parameter}={value}" for value in values]
            if spec.endswith("+") and not values and parameter not in given:
                raise UsageError(f"{name} needs {parameter.upper()}: ./inv {name} {describe_positionals(name)}")
            return placed
        if parameter in given or _skips(spec, name, values):
            continue
        if values:
            value = values.pop(0)
            _check_number(name, parameter.upper(), value, task.flags[f"--{parameter}"])
            placed.append(f"--{parameter}={value}")
        elif not spec.endswith("?"):
            raise UsageError(f"{name} needs {parameter.upper()}: ./inv {name} {describe_positionals(name)}")
    if values:
        usage = describe_positionals(name)
        takes = f"only {usage}" if usage else "nothing"
        raise UsageError(
            f"{name} takes {takes} without a flag, not {values[0]!r}. ./inv {name} --help shows its flags."
        )
    return placed


def _skips(spec: str, name: str, values: list[str]) -> bool:
    """`./inv ssh 1` means machine 1 of the latest run: no run's name is a number."""
    return spec == "run?" and len(POSITIONALS[name]) > 1 and len(values) == 1 and values[0].isdigit()


def _describe(spec: str) -> str:
    name = spec.rstrip("?+*").upper()
    shapes = {"?": f"[{name}]", "+": f"{name}...", "*": f"[{name}...]"}
    return shapes.get(spec[-1], name)


def _is_flag(word: str) -> bool:
    """A lone dash is a value, and so is a negative number."""
    return word.startswith("-") and word != "-" and not word[1:].replace(".", "", 1).isdigit()


def _long_name(argument: Argument) -> str:
    return max(argument.names, key=len).replace("_", "-")


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""
