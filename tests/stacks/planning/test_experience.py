"""What runs teach: the next plan of the same deployment takes it, narrower with every run; other deployments do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stacks.planning.basis import choose_basis
from stacks.planning.estimate import InputSummary, TokenCount
from stacks.planning.experience import Measured
from stacks.planning.history import load_history
from stacks.planning.span import Span, make_even
from stacks.run_folder import get_home, open_run
from tests.stacks.run_files import make_h100, make_job, make_template

SUMMARY = InputSummary(requests=1000, bytes=400_000, max_tokens_sum=100_000)


def make_measured(run: str = "r1", **fields: Any) -> Measured:
    """A run of the usual job on one H100: 400 requests, 1,000 work tokens a second, a boot of 3 minutes."""
    values: dict[str, Any] = {
        "job": "tickets",
        "template": "tiny@1.0.0",
        "model": "builtin:tiny-chat",
        "gpu": "H100",
        "count": 1,
        "cloud": "runpod",
        "requests": 400,
        "bytes": 160_000.0,
        "max_output_tokens": 40_000.0,
        "prompt_tokens": 50_000,
        "output_tokens": 20_000,
        "work_s": 24.0 + 40,
        "boot_s": 180.0,
    }
    return Measured(run=run, **(values | fields))


def choose(*measured: Measured, summary: InputSummary = SUMMARY, **job: Any) -> Any:
    return choose_basis(make_job(**job), make_template(), make_h100(), summary, measured)


def test_without_runs_the_table_and_bytes_decide() -> None:
    basis = choose()

    assert (basis.prompt_tokens.source, basis.output_tokens.source) == ("guess", "limits")
    assert (basis.tokens_per_s.source, basis.boot_minutes.source) == ("table", "guess")
    assert basis.prompt_tokens.span.likely == 100_000


def test_a_run_of_the_same_deployment_teaches_all_four_and_is_named() -> None:
    basis = choose(make_measured())

    assert {each.source for each in (basis.prompt_tokens, basis.output_tokens)} == {"receipts"}
    assert {each.source for each in (basis.tokens_per_s, basis.boot_minutes)} == {"receipts"}
    assert basis.tokens_per_s.span.likely == pytest.approx((20_000 + 0.08 * 50_000) / 64)
    assert basis.boot_minutes.span.likely == 3.0
    assert basis.prompt_tokens.span.likely == pytest.approx(400_000 * 50_000 / 160_000)
    assert basis.output_tokens.span.likely == pytest.approx(100_000 * 0.5)
    assert "your own run r1" in basis.tokens_per_s.words


def test_a_boot_on_another_cloud_teaches_speed_and_no_boot() -> None:
    basis = choose(make_measured(cloud="lambda"), make_measured("old", cloud=""))

    assert (basis.tokens_per_s.source, basis.boot_minutes.source) == ("receipts", "guess")


def test_what_was_learned_is_narrower_than_what_was_guessed() -> None:
    guessed, learned = choose(), choose(make_measured())

    for before, after in zip(
        (guessed.prompt_tokens, guessed.output_tokens, guessed.tokens_per_s, guessed.boot_minutes),
        (learned.prompt_tokens, learned.output_tokens, learned.tokens_per_s, learned.boot_minutes),
        strict=True,
    ):
        assert after.span.high / after.span.low < before.span.high / before.span.low


def test_two_runs_that_agree_narrow_it_further() -> None:
    one, two = choose(make_measured()), choose(make_measured(), make_measured("r2"))

    assert two.tokens_per_s.span.high < one.tokens_per_s.span.high
    assert two.tokens_per_s.span.low > one.tokens_per_s.span.low


def test_runs_that_differ_give_a_span_that_holds_both() -> None:
    span = choose(make_measured(), make_measured("r2", boot_s=360.0)).boot_minutes.span

    assert span.low < 3 < span.likely < 6 < span.high
    assert span.likely == 4.5


def test_only_the_five_newest_count() -> None:
    newest = [make_measured(f"r{number}") for number in range(5)]

    assert choose(*newest, make_measured("old", boot_s=9000.0)).boot_minutes.span.likely == 3.0


@pytest.mark.parametrize(
    "other",
    [
        {"template": "tiny@1.0.1"},
        {"model": "builtin:other"},
        {"gpu": "A10"},
        {"count": 2},
        {"engine_args": {"max_num_seqs": 8}},
    ],
)
def test_another_deployment_teaches_nothing(other: dict[str, Any]) -> None:
    basis = choose(make_measured(**other))

    assert "receipts" not in {basis.prompt_tokens.source, basis.tokens_per_s.source, basis.boot_minutes.source}


def test_another_job_teaches_speed_but_not_how_long_texts_are() -> None:
    basis = choose(make_measured(), name="reviews")

    assert (basis.prompt_tokens.source, basis.output_tokens.source) == ("guess", "limits")
    assert (basis.tokens_per_s.source, basis.boot_minutes.source) == ("receipts", "receipts")


@pytest.mark.parametrize("short", [{"requests": 5}, {"work_s": 10.0}, {"work_s": 50.0, "machines": 2}])
def test_a_short_run_says_nothing_about_speed(short: dict[str, Any]) -> None:
    assert choose(make_measured(**short)).tokens_per_s.source == "table"


def test_the_tokenizer_wins_over_receipts_for_prompts() -> None:
    counted = TokenCount(tokens=make_even(77_000), words="counted with x/tokenizer.json on 300 lines, right to 3%")
    basis = choose(make_measured(), summary=msgspec.structs.replace(SUMMARY, counted=counted))

    assert basis.prompt_tokens.source == "tokenizer"
    assert basis.work_tokens.likely == pytest.approx(50_000 + 0.08 * 77_000)


def test_embeddings_write_nothing() -> None:
    basis = choose(make_measured(), endpoint="/v1/embeddings")

    assert basis.output_tokens.span == Span(low=0, likely=0, high=0)


def test_history_reads_receipts_newest_first_and_passes_over_what_it_cannot_read() -> None:
    for run, text in (("torn", b"{"), ("old", b'{"usd": 1}'), ("good", b"")):
        folder = open_run(run, get_home())
        folder.make()
        data = msgspec.json.encode({"version": 1, "measured": make_measured(run)}) if run == "good" else text
        folder.receipt.write_bytes(data)
    open_run("empty", get_home()).make()

    assert [each.run for each in load_history(get_home())] == ["good"]


def test_a_home_that_is_not_there_has_no_history(tmp_path: Path) -> None:
    assert load_history(tmp_path / "nowhere") == ()


def test_a_receipt_that_is_no_text_teaches_nothing(tmp_path: Path) -> None:
    folder = open_run("r", tmp_path)
    folder.root.mkdir(parents=True)
    folder.receipt.write_bytes(b'{"measured": {"run": "\xff"}}')

    assert load_history(tmp_path) == ()
