"""What `./inv doctor` learns about a cloud."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from providers.access import Access, check_access
from tests.providers.fake_api import (
    RUNPOD_KEY,
    make_instance,
    make_lambda,
    make_lambda_api,
    make_page,
    make_pod,
    make_runpod,
    make_runpod_api,
    problem,
    reply,
)
from tests.providers.lambda_cloud.test_lambda_cloud import TYPES
from tests.providers.runpod.test_runpod import CATALOG


def test_a_key_that_can_read_is_reported_with_what_it_sees(tmp_path: Path) -> None:
    api = make_runpod_api().on("GET /pods", reply(200, make_page(make_pod(), make_pod(id="b", name="other"))))
    report = check_access("runpod", make_runpod(api.on("GET /catalog/gpus", reply(200, CATALOG)), tmp_path))

    assert (report.state, report.can_list, report.can_price, report.machines) == ("ok", True, True, 1)
    assert report.offers == 6

    lambda_api = make_lambda_api().on("GET /instances", reply(200, {"data": [make_instance()]}))
    report = check_access("lambda", make_lambda(lambda_api.on("GET /instance-types", reply(200, TYPES)), tmp_path))
    assert (report.state, report.machines) == ("ok", 1) and report.offers > 0


def test_a_key_that_may_list_but_not_price_is_told_apart(tmp_path: Path) -> None:
    api = (
        make_runpod_api()
        .on("GET /pods", reply(200, make_page()))
        .on("GET /catalog/gpus", problem(403, "access denied"))
    )

    report = check_access("runpod", make_runpod(api, tmp_path))
    assert (report.state, report.can_list, report.can_price) == ("refused", True, False)
    assert "read for the catalog" in report.fix


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (problem(401, "missing bearer token"), "refused"),
        (reply(401), "refused"),
        (problem(403, "access denied"), "refused"),
        (reply(410), "retired"),
        (reply(500), "failed"),
        (httpx.Response(403, content=b"error code: 1010"), "failed"),
        (httpx.Response(200, content=b"<html>"), "failed"),
    ],
)
def test_every_failure_has_its_state_and_something_to_do(tmp_path: Path, answer: httpx.Response, state: Access) -> None:
    report = check_access("runpod", make_runpod(make_runpod_api().on("GET /pods", answer), tmp_path))

    assert report.state == state
    assert report.message and report.fix
    assert RUNPOD_KEY not in f"{report}"


def test_a_missing_key_is_told_from_a_refused_one(tmp_path: Path) -> None:
    report = check_access("runpod", make_runpod(make_runpod_api(), tmp_path, runpod_api_key=None))

    assert report.state == "no_key"
    assert "RUNPOD_API_KEY" in report.message and "pods" in report.fix
