"""GPU names: what people write, and what the clouds call it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from providers import gpus
from providers.gpus import (
    list_gpu_names,
    load_table,
    name_lambda_gpu,
    name_runpod_gpu,
    resolve_gpu,
    suggest_names,
)
from schemas.errors import SpecError


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("H100", ("H100-SXM", "H100-PCIE", "H100-NVL")),
        ("h100", ("H100-SXM", "H100-PCIE", "H100-NVL")),
        ("NVIDIA H100", ("H100-SXM", "H100-PCIE", "H100-NVL")),
        ("NVIDIA-H100", ("H100-SXM", "H100-PCIE", "H100-NVL")),
        ("H100-SXM", ("H100-SXM",)),
        ("H100-SXM5", ("H100-SXM",)),
        ("h100_sxm", ("H100-SXM",)),
        ("H100 SXM", ("H100-SXM",)),
        ("H100-PCIE", ("H100-PCIE",)),
        ("H100 PCIe", ("H100-PCIE",)),
        ("H100-NVL", ("H100-NVL",)),
        ("A100", ("A100-SXM-80GB", "A100-PCIE-80GB", "A100-40GB")),
        ("A100-80GB", ("A100-SXM-80GB", "A100-PCIE-80GB")),
        ("A100-80G", ("A100-SXM-80GB", "A100-PCIE-80GB")),
        ("A100-SXM", ("A100-SXM-80GB",)),
        ("A100-SXM4-80GB", ("A100-SXM-80GB",)),
        ("A100-40GB", ("A100-40GB",)),
        ("A100-40G", ("A100-40GB",)),
        ("A10", ("A10",)),
        ("L4", ("L4",)),
        ("L40S", ("L40S",)),
        ("RTX-4090", ("RTX-4090",)),
        ("RTX4090", ("RTX-4090",)),
        ("NVIDIA GeForce RTX 4090", ("RTX-4090",)),
        ("RTX-A6000", ("RTX-A6000",)),
        ("A6000", ("RTX-A6000",)),
        ("H200", ("H200-SXM", "H200-NVL")),
        ("NVIDIA H200", ("H200-SXM",)),
        ("B200", ("B200",)),
        ("GH200", ("GH200",)),
        ("NVIDIA H100 80GB HBM3", ("H100-SXM",)),
        ("NVIDIA A100 80GB PCIe", ("A100-PCIE-80GB",)),
        ("AMD Instinct MI300X OAM", ("MI300X",)),
        ("gpu_1x_h100_sxm5", ("H100-SXM",)),
        ("gpu_8x_a100_80gb_sxm4", ("A100-SXM-80GB",)),
        ("gpu_1x_gh200", ("GH200",)),
    ],
)
def test_a_name_in_any_spelling_means_its_models(name: str, models: tuple[str, ...]) -> None:
    assert resolve_gpu(name).models == models


def test_a_family_has_the_ids_of_all_its_models_and_the_least_memory() -> None:
    h100 = resolve_gpu("NVIDIA H100")

    assert h100.name == "H100"
    assert h100.runpod_ids == ("NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL")
    assert h100.memory_gb == 80
    assert resolve_gpu("A100").memory_gb == 40


def test_an_exact_id_stays_exact() -> None:
    assert resolve_gpu("Tesla V100-SXM2-16GB").runpod_ids == ("Tesla V100-SXM2-16GB",)
    assert len(resolve_gpu("V100-16GB").runpod_ids) == 3
    assert resolve_gpu("gpu_8x_h100_sxm5").lambda_type == "gpu_8x_h100_sxm5"
    assert resolve_gpu("gpu_8x_h100_sxm5").lambda_count == 8


def test_an_exact_id_of_one_cloud_means_the_same_gpu_on_the_other() -> None:
    assert "h100_sxm5" in resolve_gpu("NVIDIA H100 80GB HBM3").lambda_types
    assert resolve_gpu("gpu_1x_h100_sxm5").runpod_ids == ("NVIDIA H100 80GB HBM3",)


@pytest.mark.parametrize("name", ["NVIDIA H900 SXM9", "gpu_1x_h900_sxm9"])
def test_an_exact_id_that_the_table_does_not_know_is_passed_on(name: str) -> None:
    gpu = resolve_gpu(name)

    assert name in (*gpu.runpod_ids, gpu.lambda_type)
    assert gpu.memory_gb == 0 and gpu.models == ()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("H1000", "H100"), ("RTX-4900", "RTX-4090"), ("A100-80", "A100-80GB"), ("L40X", "L40S"), ("B20", "B200")],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(name: str, nearest: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolve_gpu(name)
    assert name in caught.value.what
    assert nearest in caught.value.fix


@pytest.mark.parametrize("name", ["", "  ", "???", "H100; rm -rf /", "x" * 500, "gpu_x", "any", "\u2603"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(SpecError):
        resolve_gpu(name)


@pytest.mark.parametrize(
    ("suffix", "memory_gb", "name"),
    [
        ("a10", 24, "A10"),
        ("a100", 40, "A100-40GB"),
        ("a100_sxm4", 40, "A100-40GB"),
        ("a100_sxm4", 80, "A100-SXM-80GB"),
        ("a100_80gb_sxm4", 80, "A100-SXM-80GB"),
        ("h100_pcie", 80, "H100-PCIE"),
        ("h100_sxm5gdr", 80, "H100-SXM"),
        ("gh200", 96, "GH200"),
        ("b200_sxm6", 180, "B200"),
        ("rtx6000", 24, "RTX-6000"),
        ("a6000", 0, "RTX-A6000"),
        ("unheard_of", 7, "unheard_of"),
    ],
)
def test_a_lambda_type_is_named_by_its_suffix_and_its_memory(suffix: str, memory_gb: int, name: str) -> None:
    assert name_lambda_gpu(suffix, memory_gb) == name


def test_a_runpod_id_is_named_or_kept() -> None:
    assert name_runpod_gpu("NVIDIA GeForce RTX 4090") == "RTX-4090"
    assert name_runpod_gpu("NVIDIA H900") == "NVIDIA H900"


def test_every_name_alias_and_id_of_the_table_means_one_thing() -> None:
    table = load_table()
    spellings = [each for name, model in table.models.items() for each in {*map(gpus._squeeze, (name, *model.aliases))}]
    spellings += [gpus._squeeze(name) for name in table.families]
    ids = Counter(gpu_id for model in table.models.values() for gpu_id in model.runpod)
    types = Counter(known for model in table.models.values() for known in model.lambda_types)

    assert [name for name, count in Counter(spellings).items() if count > 1] == []
    assert [name for name, count in ids.items() if count > 1] == []
    assert [name for name, count in types.items() if count > 1] == []


def test_every_name_of_the_vocabulary_resolves_to_itself() -> None:
    for name in list_gpu_names():
        assert resolve_gpu(name).name == name
        assert resolve_gpu(name).memory_gb > 0
        assert resolve_gpu(name).runpod_ids or resolve_gpu(name).lambda_types


@pytest.mark.parametrize(
    "text", ["models: {A: {memory_gb: x}}", "models: [", "a: 1", "models: {}\nfamilies: {F: [NONE]}"]
)
def test_a_table_edited_into_something_else_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    table = tmp_path / "gpus.yaml"
    table.write_text(text)
    monkeypatch.setattr(gpus, "TABLE", table)

    with pytest.raises(SpecError) as caught:
        load_table.__wrapped__()
    assert caught.value.where == str(table)


def test_suggestions_are_known_names() -> None:
    assert suggest_names("us-wset-3", ["us-west-3", "us-east-1"])[0] == "us-west-3"
