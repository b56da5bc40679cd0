"""Renders what makes a shell complete `./inv`: tasks, flags, runs, job files. Called by the task `completion`; pure.

Tasks and flags are written into the script, so that a Tab costs no start of Python; runs are read from their folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from invoke.parser.context import ParserContext

from toolchain.positionals import POSITIONALS

SHELLS = ("bash", "zsh", "fish")
_TAKES_RUN = [task for task, names in POSITIONALS.items() if "run?" in names]


def render_completion(
    shell: str, tasks: Mapping[str, ParserContext], root: Path, words: Mapping[str, Sequence[str]]
) -> str:
    """The script for one of SHELLS; root: the checkout, whose runs are offered when LEASEHOLD_HOME names no other folder.

    words: what may follow a flag such as --source, where that is known; behind other flags the shell offers files.
    """
    if shell == "fish":
        return _render_fish(tasks, root, words)
    script = _render_bash(tasks, root, words)
    return f"autoload -U +X bashcompinit && bashcompinit\n{script}" if shell == "zsh" else script


def _render_bash(tasks: Mapping[str, ParserContext], root: Path, words: Mapping[str, Sequence[str]]) -> str:
    cases = [
        f"    {name}) flags={shlex.quote(' '.join(_list_flags(task)))}"
        f" valued={shlex.quote(' '.join(flag for flag in _list_flags(task) if task.flags[flag].takes_value))} ;;"
        for name, task in sorted(tasks.items())
    ]
    choices = [
        f'    {flag}) COMPREPLY=($(compgen -W {shlex.quote(" ".join(known))} -- "$word")); return ;;'
        for flag, known in sorted(words.items())
    ]
    return "\n".join(
        [
            "_leasehold_inv() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" task="${COMP_WORDS[1]}" flags="" valued=""',
            '  local before="${COMP_WORDS[COMP_CWORD-1]}"',
            "  COMPREPLY=()",
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=($(compgen -W {shlex.quote(" ".join(sorted(tasks)))} -- "$word"))',
            "    return",
            "  fi",
            '  case "$task" in',
            *cases,
            "  esac",
            '  case "$before" in',
            *choices,
            "  esac",
            # Behind a flag that wants a value: files and folders, but for --run of a task that takes one.
            '  case " $valued " in',
            '    *" $before "*) [ "$before" = --run ] || return ;;',
            "  esac",
            '  case "$word" in',
            '    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")); return ;;',
            "  esac",
            '  case "$task" in',
            f"    {'|'.join(sorted(_TAKES_RUN))})",
            f'      COMPREPLY=($(cd "{_runs(root)}" 2>/dev/null && compgen -d -- "$word")) ;;',
            "  esac",
            "}",
            # Where the function offers nothing, the shell offers files: jobs, inputs, folders.
            "complete -o default -F _leasehold_inv ./inv inv",
            "",
        ]
    )


def _render_fish(tasks: Mapping[str, ParserContext], root: Path, words: Mapping[str, Sequence[str]]) -> str:
    lines = []
    for name, task in sorted(tasks.items()):
        lines.append(f"complete -c inv -n __fish_use_subcommand -f -a {name}")
        condition = shlex.quote(f"__fish_seen_subcommand_from {name}")
        for flag in _list_flags(task):
            known = "(__leasehold_runs)" if flag == "--run" and name in _TAKES_RUN else " ".join(words.get(flag, ()))
            takes = f" -x -a {shlex.quote(known)}" if known else " -r"
            lines.append(f"complete -c inv -n {condition} -l {flag[2:]}{takes if task.flags[flag].takes_value else ''}")
    home = f"(set -q LEASEHOLD_HOME; and echo $LEASEHOLD_HOME; or echo {shlex.quote(str(root / '.leasehold'))})"
    lines += ["function __leasehold_runs", f"  path basename -- {home}/runs/*", "end"]
    condition = shlex.quote(f"__fish_seen_subcommand_from {' '.join(sorted(_TAKES_RUN))}")
    lines.append(f"complete -c inv -n {condition} -f -a '(__leasehold_runs)'")
    return "\n".join(lines) + "\n"


def _list_flags(task: ParserContext) -> Iterable[str]:
    """Long flags, sorted; invoke's own `--no-...` forms are none of ours."""
    return sorted(flag for flag in task.flags if flag.startswith("--"))


def _runs(root: Path) -> str:
    escaped = str(root / ".leasehold").replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    return f"${{LEASEHOLD_HOME:-{escaped}}}/runs"
