"""Every cloud by its name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest

from providers.cloud import Cloud, Need
from providers.registry import CLOUDS, make_cloud
from providers.settings import load_cloud_settings
from schemas.errors import CredentialError, SpecError
from schemas.job import CloudName

MEMBERS = [name for name, member in vars(Cloud).items() if inspect.isfunction(member) and not name.startswith("_")]


def test_the_registry_has_exactly_the_clouds_that_a_job_may_name() -> None:
    assert set(CLOUDS) == set(get_args(CloudName))


@pytest.mark.parametrize("name", sorted(CLOUDS))
def test_every_cloud_has_the_six_members_of_the_contract(name: str, tmp_path: Path) -> None:
    cloud = make_cloud(name, load_cloud_settings({"HOME": str(tmp_path)}))

    assert len(MEMBERS) == 6
    for member in MEMBERS:
        ours = inspect.signature(getattr(cloud, member)).parameters
        wanted = [each for each in inspect.signature(getattr(Cloud, member)).parameters if each != "self"]
        assert list(ours) == wanted, member


@pytest.mark.parametrize("name", ["runpod", "lambda"])
def test_a_cloud_can_be_made_without_a_key_and_says_so_when_it_is_used(name: str, tmp_path: Path) -> None:
    cloud = make_cloud(name, load_cloud_settings({"HOME": str(tmp_path)}))

    for use in (lambda: cloud.offers(Need()), lambda: cloud.list_ours("lh-"), lambda: cloud.find("x")):
        with pytest.raises(CredentialError) as caught:
            use()
        assert caught.value.exit_code == 3
        assert "_API_KEY" in caught.value.where


def test_the_local_cloud_costs_what_the_job_says(tmp_path: Path) -> None:
    settings = load_cloud_settings({"HOME": str(tmp_path), "LEASEHOLD_LOCAL_CLOUD_DIR": str(tmp_path / "lc")})

    (offer,) = make_cloud("local", settings, price_usd_per_hour=1.25).offers(Need())
    assert offer.price_usd_per_hour == 1.25


def test_an_unknown_cloud_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="runpod"):
        make_cloud("vast", load_cloud_settings({"HOME": str(tmp_path)}))
