"""What the environment says about the clouds."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from providers.http.secret import Secret
from providers.settings import (
    LAMBDA_URL,
    RUNPOD_URL,
    CloudSettings,
    list_emulated,
    load_cloud_settings,
    require_key,
)
from schemas.errors import CredentialError, SpecError


def test_an_empty_environment_gives_the_defaults_and_no_keys() -> None:
    settings = load_cloud_settings({})

    assert (settings.runpod_base_url, settings.lambda_base_url) == (RUNPOD_URL, LAMBDA_URL)
    assert settings.runpod_api_key is None and settings.lambda_api_key is None
    assert settings.runpod_cloud_type == "SECURE"


def test_every_variable_is_read() -> None:
    settings = load_cloud_settings(
        {
            "RUNPOD_API_KEY": " rpa_1 \n",
            "RUNPOD_BASE_URL": "http://127.0.0.1:8901/v2/",
            "RUNPOD_DATA_CENTERS": "us-ks-2, EU-RO-1,",
            "RUNPOD_IMAGE": "img:1",
            "RUNPOD_CLOUD_TYPE": "community",
            "RUNPOD_SSH_PUBLIC_KEY": "ssh-ed25519 AAAA me",
            "LAMBDA_CLOUD_API_KEY": "secret_2",
            "LAMBDA_CLOUD_BASE_URL": "https://cloud.example.test/api/v1",
            "LAMBDA_CLOUD_REGION": "us-west-3",
            "LAMBDA_CLOUD_SSH_KEYS": "mine,other",
            "LAMBDA_CLOUD_IMAGE_FAMILY": "lambda-stack-24-04",
            "LEASEHOLD_STATE_DIR": "/var/lease",
            "LEASEHOLD_LOCAL_CLOUD_DIR": "/tmp/lc",
            "LEASEHOLD_EMULATOR_PACE": "20",
            "LEASEHOLD_REQUEST_TIMEOUT_S": "5",
            "AWS_SECRET_ACCESS_KEY": "not ours",
        }
    )

    assert settings == CloudSettings(
        runpod_api_key=Secret("rpa_1"),
        runpod_base_url="http://127.0.0.1:8901/v2",
        runpod_data_centers=("US-KS-2", "EU-RO-1"),
        runpod_image="img:1",
        runpod_cloud_type="COMMUNITY",
        runpod_ssh_public_key="ssh-ed25519 AAAA me",
        lambda_api_key=Secret("secret_2"),
        lambda_base_url="https://cloud.example.test/api/v1",
        lambda_region="us-west-3",
        lambda_ssh_keys=("mine", "other"),
        lambda_image_family="lambda-stack-24-04",
        state_dir=Path("/var/lease"),
        local_environment={"LEASEHOLD_LOCAL_CLOUD_DIR": "/tmp/lc"},
        emulator_pace=20.0,
        request_timeout_s=5.0,
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RUNPOD_CLOUD_TYPE", "ALL"),
        ("RUNPOD_BASE_URL", "ftp://x"),
        ("RUNPOD_BASE_URL", "api.runpod.io"),
        ("RUNPOD_BASE_URL", "http://api.runpod.io/v2"),
        ("RUNPOD_BASE_URL", "https://user:pw@host/v2"),
        ("RUNPOD_BASE_URL", "https://host:99999/v2"),
        ("RUNPOD_BASE_URL", "https://[::1/v2"),
        ("LAMBDA_CLOUD_BASE_URL", "http://10.0.0.1/api/v1"),
        ("RUNPOD_SSH_PUBLIC_KEY", "ssh-ed25519 AAAA caf\udce9"),
        ("RUNPOD_IMAGE", "image\x1b[31m"),
        ("LEASEHOLD_EMULATOR_PACE", "fast"),
        ("LEASEHOLD_EMULATOR_PACE", "nan"),
        ("LEASEHOLD_REQUEST_TIMEOUT_S", "0"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_cloud_settings({variable: value})
    assert caught.value.where == variable
    assert caught.value.fix


@pytest.mark.parametrize("key", ["two words", "caf\u00e9", "a\x07b"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(CredentialError) as caught:
        load_cloud_settings({"RUNPOD_API_KEY": key})
    assert caught.value.where == "RUNPOD_API_KEY"
    assert key not in str(caught.value)


def test_a_missing_key_is_an_error_that_names_the_variable_and_the_least_right() -> None:
    with pytest.raises(CredentialError) as caught:
        require_key(None, variable="X_KEY", cloud="X", least_right="read for pods")
    assert "X_KEY is not set" in str(caught.value) and "read for pods" in str(caught.value)


def test_a_secret_is_shown_nowhere() -> None:
    secret = Secret("rpa_1")
    settings = load_cloud_settings({"RUNPOD_API_KEY": "rpa_1"})

    assert "rpa_1" not in f"{secret} {secret!r} {settings!r} {vars(settings)}"
    assert secret.reveal() == "rpa_1"
    with pytest.raises(TypeError):
        pickle.dumps(settings)


def test_a_cloud_whose_api_is_on_this_computer_is_an_emulator() -> None:
    settings = load_cloud_settings({"RUNPOD_BASE_URL": "http://127.0.0.1:4010/v2"})

    assert list_emulated(settings) == ("runpod",)
    assert list_emulated(load_cloud_settings({})) == ()
