"""Clouds by name: one client each, a missing key shows at its first use, and waits that fit the slowest of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.cloud import Need
from providers.local.local import LocalCloud
from providers.open_clouds import CONSOLES, choose_waits, open_clouds
from providers.registry import CLOUDS
from schemas.errors import CredentialError, SpecError


def test_every_name_has_a_client_and_nothing_is_contacted(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "RUNPOD_API_KEY": "rpa_x", "LAMBDA_CLOUD_API_KEY": "secret_x"}

    clouds = open_clouds(CLOUDS, environ)

    assert list(clouds) == list(CLOUDS)
    assert isinstance(clouds["local"], LocalCloud)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["runpod", "lambda"])
def test_a_missing_key_is_told_at_the_first_use_with_its_variable(name: str, tmp_path: Path) -> None:
    cloud = open_clouds([name], {"HOME": str(tmp_path)})[name]

    for call in (lambda: cloud.offers(Need()), lambda: cloud.list_ours("lh-"), lambda: cloud.terminate("x")):
        with pytest.raises(CredentialError) as caught:
            call()
        assert "API_KEY" in str(caught.value)


def test_an_unknown_cloud_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="no cloud 'moon'"):
        open_clouds(["moon"], {"HOME": "/nowhere"})


def test_the_environment_is_read_at_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASEHOLD_LOCAL_CLOUD_DIR", str(tmp_path / "first"))
    first = open_clouds(["local"])["local"]
    monkeypatch.setenv("LEASEHOLD_LOCAL_CLOUD_DIR", str(tmp_path / "second"))
    second = open_clouds(["local"])["local"]

    assert isinstance(first, LocalCloud) and isinstance(second, LocalCloud)
    assert first._root != second._root


def test_the_local_cloud_answers_at_once_and_others_within_two_timeouts() -> None:
    assert choose_waits(["local"], {}).request_timeout_s == 5
    assert choose_waits(["local", "runpod"], {}).request_timeout_s == 120
    assert choose_waits(["lambda"], {"LEASEHOLD_REQUEST_TIMEOUT_S": "10"}).request_timeout_s == 20


def test_emulators_are_looked_at_more_often() -> None:
    environ = {"LEASEHOLD_EMULATOR_PACE": "20"}

    assert choose_waits(["runpod"], environ).poll_s == choose_waits(["runpod"], {}).poll_s / 20


def test_every_cloud_that_costs_money_has_a_console_to_look_at() -> None:
    assert CONSOLES.keys() == CLOUDS.keys() - {"local"}
