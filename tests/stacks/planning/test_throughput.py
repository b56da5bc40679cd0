"""The table of speeds: every row has a source; what has no row is scaled from the nearest, and told so."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from providers.gpus import load_table as load_gpus
from schemas.errors import SpecError
from schemas.template import Quantization, Template
from stacks.planning import throughput
from stacks.planning.throughput import ModelSize, find_speed, load_table, measure_model
from tests.stacks.run_files import make_template


def make_size(billions: float, bits: int = 16, **fields: bool) -> ModelSize:
    return ModelSize(billions=billions, active=billions, weight_bits=bits, **fields)


def name_template(uri: str, weight: str = "") -> Template:
    base = make_template()
    source = msgspec.structs.replace(base.spec.model_source, type="huggingface", uri=uri)
    spec = msgspec.structs.replace(
        base.spec, model_source=source, quantization=msgspec.convert({"weight": weight}, Quantization)
    )
    return msgspec.structs.replace(base, name="any", spec=spec)


def test_every_row_is_of_a_known_gpu_and_every_source_has_an_address() -> None:
    table = load_table()

    assert {row.gpu for row in table.speeds} | set(table.gigabytes_per_s) <= set(load_gpus().models)
    assert {row.source for row in table.speeds} == set(table.sources)
    assert all(source.url.startswith("https://") and source.title for source in table.sources.values())


def test_a_row_is_taken_as_it_stands() -> None:
    speed = find_speed("H100-SXM", 1, make_size(8, 8))

    assert (speed.tokens_per_s.low, speed.tokens_per_s.likely, speed.tokens_per_s.high) == (4800, 11100, 28000)
    assert speed.words == "measured by others: NVIDIA, TensorRT-LLM 1.0 performance overview"


def test_a_family_counts_as_its_usual_model() -> None:
    assert (
        find_speed("H100", 1, make_size(8, 8)).tokens_per_s == find_speed("H100-SXM", 1, make_size(8, 8)).tokens_per_s
    )


def test_what_has_no_row_is_scaled_and_wider_and_says_from_what() -> None:
    speed = find_speed("A10", 1, make_size(7.6))

    assert speed.tokens_per_s.likely == pytest.approx(830 * 600 / 300, rel=0.5)
    assert speed.tokens_per_s.high / speed.tokens_per_s.low > 3 * 1.5
    assert "7.6 billion parameters in 16 bits on A10, scaled from" in speed.words


@pytest.mark.parametrize("gpu", ["L4", "A10", "A100-40GB", "H100-SXM", "B200", "RTX-5090", "NVIDIA X999 1TB"])
def test_larger_models_are_slower_on_every_gpu_known_or_not(gpu: str) -> None:
    likely = [find_speed(gpu, 1, make_size(billions)).tokens_per_s.likely for billions in (1, 8, 32, 70)]

    assert likely == sorted(likely, reverse=True)
    assert likely[-1] > 0


def test_more_gpus_are_faster_but_not_so_many_times() -> None:
    one, four = (find_speed("H100-SXM", count, make_size(70, 8)).tokens_per_s for count in (1, 4))

    assert one.likely < four.likely < 4 * one.likely
    assert four.high == 4 * one.high


def test_a_model_of_unknown_size_is_said_to_be_one() -> None:
    speed = find_speed("H100-SXM", 1, make_size(8, 8, is_known=False))

    assert "a model of unknown size, taken as 8 billion" in speed.words
    assert speed.tokens_per_s.high / speed.tokens_per_s.low > 20


def test_this_computer_is_no_gpu() -> None:
    assert "this computer's processor" in find_speed("cpu", 1, make_size(0.001)).words


@pytest.mark.parametrize(
    ("uri", "weight", "billions", "active", "bits"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "bf16", 7, 7, 16),
        ("Qwen/Qwen2.5-0.5B-Instruct", "", 0.5, 0.5, 16),
        ("meta-llama/Llama-3.1-70B-Instruct", "fp8", 70, 70, 8),
        ("Qwen/Qwen3-30B-A3B", "awq", 30, 3, 4),
        ("openai/gpt-oss-20b", "", 20.9, 3.6, 16),
        ("HuggingFaceTB/SmolLM2-135M", "", 0.135, 0.135, 16),
        ("BAAI/bge-m3", "fp16", 0.57, 0.57, 16),
    ],
)
def test_a_models_size_is_in_its_name_or_in_the_table(
    uri: str, weight: str, billions: float, active: float, bits: int
) -> None:
    size = measure_model(name_template(uri, weight))

    assert (size.billions, size.active, size.weight_bits, size.is_known) == (billions, active, bits, True)


def test_a_name_without_a_size_is_unknown() -> None:
    assert not measure_model(name_template("acme/llama-3.1-chat")).is_known


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("source: gpustack}", "source: nobody}"),
        ("[4800, 11100, 28000]", "[4800, 11100, 9]"),
        ("\nspeeds:", "\nspedes:"),
    ],
)
def test_a_table_that_was_edited_wrongly_is_told_with_its_place(
    old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.yaml").write_text(throughput.TABLE.read_text().replace(old, new, 1))
    monkeypatch.setattr(throughput, "TABLE", tmp_path / "t.yaml")
    load_table.cache_clear()
    try:
        with pytest.raises(SpecError) as caught:
            load_table()
        assert caught.value.where.endswith("t.yaml")
    finally:
        load_table.cache_clear()
