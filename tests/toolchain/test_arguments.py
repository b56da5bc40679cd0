"""What a person types, and what invoke is given for it."""

from __future__ import annotations

import pytest
from invoke.collection import Collection
from invoke.context import Context
from invoke.parser.context import ParserContext
from invoke.program import Program
from invoke.tasks import task

from toolchain.arguments import UsageError, describe_positionals, translate
from toolchain.positionals import POSITIONALS


@task(iterable=["job"])
def run(c: Context, job: list[str], run: str = "", limit: int = 0, max_usd: float = 0.0, yes: bool = False) -> None:
    pass


@task
def status(c: Context, run: str = "", json: bool = False) -> None:
    pass


@task
def ssh(c: Context, run: str = "", machine: int = 0) -> None:
    pass


@task(iterable=["base_url"])
def dispatch(c: Context, input: str, outdir: str, base_url: list[str], color: bool = True) -> None:
    pass


@task(iterable=["job"])
def validate(c: Context, job: list[str]) -> None:
    pass


@task(name="test")
def run_tests(c: Context) -> None:
    pass


_COLLECTION = Collection(run, status, ssh, dispatch, validate, run_tests)
_TASKS = {context.name: context for context in _COLLECTION.to_contexts() if context.name}


def _translate(*typed: str) -> list[str]:
    program = Program(namespace=_COLLECTION)
    program.create_config()
    core = ParserContext(args=[*program.core_args(), *program.task_args()])
    return translate(typed, core, _TASKS)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", ""),
        ("--help", "--help"),
        ("status", "status"),
        ("status X", "status --run=X"),
        ("status --run X", "status --run=X"),
        ("status --json X", "status --json --run=X"),
        ("status X -j", "status --json --run=X"),
        ("run", "run"),
        ("run a.yaml", "run --job=a.yaml"),
        ("run a.yaml b.yaml", "run --job=a.yaml --job=b.yaml"),
        ("run --job a.yaml", "run --job=a.yaml"),
        ("run --limit 5 a.yaml", "run --limit=5 --job=a.yaml"),
        ("run -l 5 a.yaml -y", "run --limit=5 --yes --job=a.yaml"),
        ("run --max-usd=1.5 a.yaml", "run --max-usd=1.5 --job=a.yaml"),
        ("run --run X a.yaml", "run --run=X --job=a.yaml"),
        ("run dir=1/a.yaml", "run --job=dir=1/a.yaml"),
        ("ssh X 1", "ssh --run=X --machine=1"),
        ("ssh 1", "ssh --machine=1"),
        ("ssh X", "ssh --run=X"),
        ("ssh --run X 1", "ssh --run=X --machine=1"),
        ("ssh X --machine -1", "ssh --machine=-1 --run=X"),
        ("dispatch in out --base-url u --base-url v", "dispatch --base-url=u --base-url=v --input=in --outdir=out"),
        ("dispatch - out --no-color", "dispatch --no-color --input=- --outdir=out"),
        ("run --help", "--help run"),
        ("run a.yaml -h", "--help run"),
        ("help run", "--help run"),
        ("help", "--help"),
        ("--echo status X", "--echo status --run=X"),
    ],
)
def test_positionals_become_flags(typed, expected):
    assert _translate(*typed.split()) == expected.split()


def test_a_value_with_spaces_or_a_dash_stays_one_value():
    assert _translate("status", "a b") == ["status", "--run=a b"]
    assert _translate("status", "--run=-x") == ["status", "--run=-x"]


def test_what_follows_two_dashes_is_kept_as_one_quoted_text():
    assert _translate("test", "--", "-k", "a b", "--", "x") == ["test", "--", "-k 'a b' -- x"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("statsu", "there is no task 'statsu'. Did you mean status?"),
        ("qqqqqq", "there is no task 'qqqqqq'. ./inv --list"),
        ("help rum", "there is no task 'rum'. Did you mean run?"),
        ("--lst", "there is no option --lst."),
        ("status --jsn", "status has no flag --jsn. Did you mean --json?"),
        ("status --run", "--run of status needs a value."),
        ("run a --limit --yes", "--limit of run needs a value."),
        ("run a --limit many", "--limit of run needs a whole number, not 'many'."),
        ("run a --max-usd much", "--max-usd of run needs a number, not 'much'."),
        ("status --json=1", "--json of status takes no value."),
        ("status a b", "status takes only [RUN] without a flag, not 'b'."),
        ("test a", "test takes nothing without a flag, not 'a'."),
        ("ssh X one", "MACHINE of ssh needs a whole number, not 'one'."),
        ("validate", "validate needs JOB: ./inv validate JOB..."),
        ("dispatch in", "dispatch needs OUTDIR: ./inv dispatch INPUT OUTDIR"),
        ("dispatch in out --no-colour", "dispatch has no flag --no-colour. Did you mean --no-color?"),
    ],
)
def test_a_mistake_becomes_one_sentence(typed, message):
    with pytest.raises(UsageError) as caught:
        _translate(*typed.split())

    assert message in str(caught.value)


def test_only_the_last_positional_may_be_repeated_and_none_required_follows_an_optional_one():
    for task_name, specs in POSITIONALS.items():
        assert not any(spec.endswith("+") for spec in specs[:-1]), task_name
        optional = [spec.endswith("?") for spec in specs]
        assert optional == sorted(optional), task_name


def test_usage_lines_show_what_may_be_left_out_or_repeated():
    assert describe_positionals("run") == "[JOB...]"
    assert describe_positionals("validate") == "JOB..."
    assert describe_positionals("ssh") == "[RUN] [MACHINE]"
    assert describe_positionals("no such task") == ""
