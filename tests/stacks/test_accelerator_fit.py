from __future__ import annotations

import pytest

from providers.gpus import resolve_gpu
from stacks.accelerator_fit import is_connected, list_connected


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
    assert list_connected(resolve_gpu("H100"), "pcie") == ["H100-PCIE"]
    assert list_connected(resolve_gpu("A100"), "nvlink") == ["A100-SXM-80GB", "A100-40GB"]
    assert "A100-PCIE-80GB" in list_connected(resolve_gpu("A100"), "pcie")
