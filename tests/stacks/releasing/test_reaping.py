"""What `reap` shows and ends, over a scripted API: a wrong clock of ours is noticed by the cloud's own."""

from __future__ import annotations

import email.utils
from pathlib import Path

import pytest

from providers.http.http_client import read_date
from providers.lease.reaper import find_expired
from stacks.releasing.reaping import fetch_time
from tests.providers.fake_api import FakeApi, make_lambda, make_lambda_api, make_runpod, make_runpod_api, reply

NOW = 1_790_000_000.0


def answer_at(moment: float, data: object) -> FakeApi:
    return make_runpod_api().on("GET /pods", reply(200, data, date=email.utils.formatdate(moment, usegmt=True)))


def test_a_clouds_time_is_read_from_the_answer_to_a_listing(tmp_path: Path) -> None:
    runpod = make_runpod(answer_at(NOW, {"pods": []}), tmp_path)
    listing = reply(200, {"data": []}, date=email.utils.formatdate(NOW, usegmt=True))
    lambda_cloud = make_lambda(make_lambda_api().on("GET /instances", listing), tmp_path)

    assert fetch_time(runpod) == NOW
    assert fetch_time(lambda_cloud) == NOW


def test_a_cloud_that_says_no_time_tells_none(tmp_path: Path) -> None:
    runpod = make_runpod(make_runpod_api().on("GET /pods", reply(200, {"pods": []})), tmp_path)

    assert fetch_time(runpod) is None


@pytest.mark.parametrize("header", ["", "yesterday", "Mon, 99 Xyz 2026 00:00:00 GMT"])
def test_what_is_no_date_is_no_time(header: str) -> None:
    assert read_date(header) is None


def test_a_clock_that_is_an_hour_ahead_ends_nothing(tmp_path: Path) -> None:
    cloud = make_runpod(answer_at(NOW - 3600, {"pods": []}), tmp_path)

    findings = find_expired({"runpod": cloud}, NOW, fetch_time=lambda _: fetch_time(cloud))

    assert findings.expired == ()
    assert "clock" in findings.skipped["runpod"]
