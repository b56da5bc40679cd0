"""What `./inv offers` shows: no blank where a cloud names nothing, and each cloud's refusal once."""

from __future__ import annotations

import pytest

from providers.cloud import Offer
from schemas.errors import CredentialError
from stacks.verbs import offers as offers_module
from stacks.verbs.offers import report_offers
from tests.stacks.run_files import make_h100


def show(offer: Offer, capsys: pytest.CaptureFixture[str]) -> list[str]:
    offers_module._print_offers([offer])
    return capsys.readouterr().out.splitlines()[1].split()


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, ["secure", "US-1", "3.00", "-"]),
        ({"region": "", "stock": "High"}, ["secure", "any", "3.00", "high"]),
        ({"region": "", "tier": "", "available": False}, ["-", "-", "3.00", "sold", "out"]),
    ],
)
def test_no_column_is_blank(fields: dict[str, object], shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert show(make_h100(**fields), capsys)[4:] == shown  # type: ignore[arg-type]


def test_without_any_key_each_cloud_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CredentialError) as caught:
        report_offers(job="", gpu="H100", count=1, cloud="", as_json=False)

    said = capsys.readouterr().err
    assert "RUNPOD_API_KEY" in caught.value.what and "RUNPOD_API_KEY" not in said
    assert said.count("LAMBDA_CLOUD_API_KEY") == 1
