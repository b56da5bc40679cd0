"""How the GPUs of one machine are connected: the table, the clouds' own words, and which offers a need leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers.cloud import Need, Offer
from providers.gpus import load_table, resolve_gpu
from providers.interconnect import find_interconnect, is_connected, list_connected_models
from providers.local.local import LocalCloud
from schemas.errors import SpecError
from schemas.job import Candidate
from stacks.planning.planning import make_need
from tests.providers.fake_api import make_lambda, make_lambda_api, make_runpod, make_runpod_api, make_type, reply


@pytest.mark.parametrize(
    ("name", "spelling", "described", "expected"),
    [
        ("H100-SXM", "NVIDIA H100 80GB HBM3", "H100 SXM", "nvlink"),
        ("H100-SXM", "NVIDIA H100 80GB HBM3", "", "nvlink"),
        ("H100-PCIE", "NVIDIA H100 PCIe", "H100 PCIe", "pcie"),
        ("H100-NVL", "NVIDIA H100 NVL", "H100 NVL", "nvlink"),
        ("H200-SXM", "NVIDIA H200", "H200 SXM", "nvlink"),
        ("B200", "NVIDIA B200", "B200", "nvlink"),
        ("L40S", "NVIDIA L40S", "L40S", "pcie"),
        ("RTX-3090", "NVIDIA GeForce RTX 3090", "RTX 3090", "pcie"),
        ("V100-16GB", "Tesla V100-SXM2-16GB", "V100 SXM2", "nvlink"),
        ("V100-16GB", "Tesla V100-FHHL-16GB", "V100 FHHL", "pcie"),
        ("MI300X", "AMD Instinct MI300X OAM", "MI300X", "other"),
        ("A100-40GB", "a100", "A100 (40 GB PCIe)", "pcie"),
        ("A100-40GB", "a100", "A100 (40 GB SXM4)", "nvlink"),
        ("A100-40GB", "a100_pcie", "A100 (40 GB)", "pcie"),
        ("V100-16GB", "v100", "Tesla V100 (16 GB)", "nvlink"),
        ("NVIDIA X100 SXM", "NVIDIA X100 SXM", "", "nvlink"),
        ("NVIDIA X100", "NVIDIA X100", "X100 PCIe", "pcie"),
        ("NVIDIA X100", "NVIDIA X100", "", ""),
    ],
)
def test_the_clouds_own_words_win_over_the_table_and_the_table_over_nothing(
    name: str, spelling: str, described: str, expected: str
) -> None:
    assert find_interconnect(name, spelling, described) == expected


def test_no_name_of_the_table_contradicts_it() -> None:
    for name, model in load_table().models.items():
        for spelling in (name, *model.runpod, *model.lambda_types):
            words = spelling.upper()
            expected = "nvlink" if "SXM" in words else "pcie" if "PCI" in words else None
            assert expected in (None, find_interconnect(name, spelling)), spelling
        assert set(model.pcie) <= {*model.runpod, *model.lambda_types}


@pytest.mark.parametrize(
    ("gpu", "gpu_id", "has_nvlink"),
    [
        ("B200", "NVIDIA B200", True),
        ("H100-SXM", "NVIDIA H100 80GB HBM3", True),
        ("H100-NVL", "gpu_1x_h100_nvl", True),
        ("H100-PCIE", "gpu_1x_h100_pcie", False),
        ("A100-40GB", "gpu_8x_a100", True),
        ("A100-40GB", "gpu_1x_a100_pcie", False),
        ("A10", "gpu_1x_a10", False),
    ],
)
def test_a_board_is_connected_as_the_clouds_table_says(gpu: str, gpu_id: str, has_nvlink: bool) -> None:
    assert is_connected(gpu, gpu_id, "nvlink") is has_nvlink
    assert is_connected(gpu, gpu_id, "pcie") is not has_nvlink
    assert is_connected(gpu, gpu_id, "")


def test_a_familys_models_are_narrowed_and_one_with_boards_of_both_kinds_stays_in_both() -> None:
    assert list_connected_models(resolve_gpu("H100"), "pcie") == ["H100-PCIE"]
    assert list_connected_models(resolve_gpu("A100"), "nvlink") == ["A100-SXM-80GB", "A100-40GB"]
    assert "A100-PCIE-80GB" in list_connected_models(resolve_gpu("A100"), "pcie")


def make_entry(id: str, name: str, memory: int, price: float) -> dict[str, Any]:
    return {
        "id": id,
        "name": name,
        "manufacturer": "NVIDIA",
        "memory": memory,
        "secure": True,
        "price": {"secure": price, "community": price},
        "maxCount": {"secure": 8, "community": 8},
        "availability": "HIGH",
    }


@pytest.fixture
def runpod(tmp_path: Path) -> Any:
    gpus = [
        make_entry("NVIDIA H100 PCIe", "H100 PCIe", 80, 2.39),
        make_entry("NVIDIA H100 NVL", "H100 NVL", 94, 2.79),
        make_entry("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 2.99),
        make_entry("NVIDIA L40S", "L40S", 48, 0.86),
        make_entry("NVIDIA X100", "X100", 96, 0.5),
    ]
    return make_runpod(make_runpod_api().on("GET /catalog/gpus", reply(200, {"gpus": gpus})), tmp_path)


@pytest.fixture
def lambda_cloud(tmp_path: Path) -> Any:
    rows = [
        ("gpu_1x_h100_pcie", "1x H100 (80 GB PCIe)", 329, 1),
        ("gpu_1x_h100_sxm5", "1x H100 (80 GB SXM5)", 429, 1),
        ("gpu_1x_a10", "1x A10 (24 GB PCIe)", 129, 1),
    ]
    data = {name: make_type(name, words, cents, gpus, ["us-west-3"]) for name, words, cents, gpus in rows}
    return make_lambda(make_lambda_api().on("GET /instance-types", reply(200, {"data": data})), tmp_path)


def list_ids(offers: Any) -> list[str]:
    return [offer.gpu_id for offer in offers]


def test_runpod_offers_only_gpus_that_are_connected_as_asked(runpod: Any) -> None:
    assert list_ids(runpod.offers(Need(gpu="H100", interconnect="nvlink"))) == [
        "NVIDIA H100 NVL",
        "NVIDIA H100 80GB HBM3",
    ]
    assert list_ids(runpod.offers(Need(gpu="H100", interconnect="pcie"))) == ["NVIDIA H100 PCIe"]
    assert len(list_ids(runpod.offers(Need(gpu="H100")))) == 3


def test_any_gpu_means_any_that_is_known_to_be_connected_so(runpod: Any) -> None:
    assert list_ids(runpod.offers(Need(min_gb=48, interconnect="pcie"))) == ["NVIDIA L40S", "NVIDIA H100 PCIe"]
    assert "NVIDIA X100" not in list_ids(runpod.offers(Need(min_gb=48, interconnect="nvlink")))
    assert runpod.offers(Need(min_gb=95, interconnect="nvlink")) == []


def test_lambda_offers_only_types_that_are_connected_as_asked(lambda_cloud: Any) -> None:
    assert list_ids(lambda_cloud.offers(Need(gpu="H100", interconnect="nvlink"))) == ["gpu_1x_h100_sxm5"]
    assert list_ids(lambda_cloud.offers(Need(gpu="H100", interconnect="pcie"))) == ["gpu_1x_h100_pcie"]
    assert list_ids(lambda_cloud.offers(Need(interconnect="pcie"))) == ["gpu_1x_a10", "gpu_1x_h100_pcie"]


@pytest.mark.parametrize("gpu", ["L40S", "NVIDIA X100"])
def test_what_runpods_gpu_never_has_is_a_mistake_with_what_it_has(runpod: Any, gpu: str) -> None:
    has = {"L40S": "pcie", "NVIDIA X100": "unknown"}[gpu]
    with pytest.raises(SpecError, match=f"no {gpu} with nvlink between its GPUs, only: {has}") as caught:
        runpod.offers(Need(gpu=gpu, interconnect="nvlink"))
    assert caught.value.where == "interconnect" and "leave it out" in caught.value.fix


def test_what_lambdas_gpu_never_has_is_a_mistake_with_what_it_has(lambda_cloud: Any) -> None:
    with pytest.raises(SpecError, match="no A10 with nvlink between its GPUs, only: pcie"):
        lambda_cloud.offers(Need(gpu="A10", interconnect="nvlink"))


def test_this_computer_has_no_gpus_to_connect(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="interconnect 'nvlink': the local cloud has no GPUs"):
        LocalCloud(tmp_path).offers(Need(gpu="cpu", interconnect="nvlink"))


def test_the_preferred_type_comes_first_and_the_others_by_price_after_it(runpod: Any, lambda_cloud: Any) -> None:
    hint = "NVIDIA H100 80GB HBM3"
    assert list_ids(runpod.offers(Need(gpu="H100", sku_hint=hint))) == [hint, "NVIDIA H100 PCIe", "NVIDIA H100 NVL"]
    hinted = lambda_cloud.offers(Need(gpu="H100", sku_hint="gpu_1x_h100_sxm5"))
    assert list_ids(hinted) == ["gpu_1x_h100_sxm5", "gpu_1x_h100_pcie"]


def test_the_preferred_type_of_another_cloud_changes_nothing(runpod: Any) -> None:
    def sort(need: Need) -> list[Offer]:
        return list(runpod.offers(need))

    assert sort(Need(gpu="H100", sku_hint="gpu_1x_h100_sxm5")) == sort(Need(gpu="H100"))


def test_a_candidate_asks_its_cloud_for_both() -> None:
    candidate = Candidate(cloud="lambda", gpu="H100", interconnect="nvlink", sku_hint="gpu_1x_h100_sxm5")

    assert make_need(candidate) == Need(gpu="H100", interconnect="nvlink", sku_hint="gpu_1x_h100_sxm5")
