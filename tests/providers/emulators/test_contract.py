"""The vendors' documents as judges: what they refuse, in which words, and that both forms of RunPod's are served."""

from __future__ import annotations

from typing import Any

import pytest

from providers.emulators.contract import MethodNotAllowed, NoSuchPath, load_contract

POD = {"name": "a", "image": "b", "disk": 1, "gpu": {"id": "x", "count": 1}}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"dataCenterId": "US"}, "$: additional properties 'dataCenterId' not allowed"),
        ({"name": None}, "$: missing property 'name'"),
        ({"image": None}, "$: missing property 'image'"),
        ({"disk": "50"}, "$.disk: got string, want integer"),
        ({"cmd": "sh"}, "$.cmd: got string, want array"),
        ({"cloud": "ALL"}, "$.cloud: value must be one of 'SECURE', 'COMMUNITY'"),
        ({"gpu": {"id": "x", "vcpuCount": 3}}, "$.gpu: additional properties 'vcpuCount' not allowed"),
        (
            {"mounts": {"persistent": {"size": 5, "path": "/x"}}},
            "$.mounts.persistent.size: 5 is less than the minimum of 10",
        ),
    ],
)
def test_a_create_that_misses_the_document_is_described_in_the_services_words(
    body: dict[str, Any], problem: str
) -> None:
    merged = {name: value for name, value in (POD | body).items() if value is not None}

    assert load_contract("runpod-september").request_problems("POST", "/v2/pods", {}, merged) == [problem]


def test_only_the_september_form_knows_the_command_arrays() -> None:
    body = POD | {"entrypoint": ["sh"], "cmd": ["-c", "true"]}

    assert load_contract("runpod-september").request_problems("POST", "/v2/pods", {}, body) == []
    assert load_contract("runpod-august").request_problems("POST", "/v2/pods", {}, body) == [
        "$: additional properties 'cmd', 'entrypoint' not allowed"
    ]


def test_a_query_is_judged_by_the_parameters_that_the_document_names() -> None:
    contract = load_contract("runpod-september")

    assert contract.request_problems("GET", "/v2/pods", {"limit": "1001", "name": "x"}, None) != []
    assert contract.request_problems("GET", "/v2/pods", {"limit": "1000", "name": "x"}, None) == []
    assert contract.request_problems("GET", "/v2/catalog/gpus", {"product": "POD,CLOWN"}, None) != []


def test_lambdas_patterns_are_kept() -> None:
    body = {"region_name": "r", "instance_type_name": "t", "ssh_key_names": ["k"], "hostname": "Not_a_host"}
    contract = load_contract("lambda")

    problems = contract.request_problems("POST", "/api/v1/instance-operations/launch", {}, body)

    assert len(problems) == 1 and problems[0].startswith("$.hostname: 'Not_a_host' does not match")


def test_paths_with_blanks_in_them_are_found_and_others_are_not() -> None:
    contract = load_contract("runpod-august")

    assert contract.find_operation("GET", "/v2/catalog/gpus/NVIDIA L4").path_values == {"id": "NVIDIA L4"}
    with pytest.raises(NoSuchPath):
        contract.find_operation("GET", "/v2/tags")
    with pytest.raises(MethodNotAllowed) as refusal:
        contract.find_operation("PUT", "/v2/pods")
    assert refusal.value.allowed == ("GET", "POST")


def test_an_answer_that_misses_the_document_is_noticed() -> None:
    contract = load_contract("runpod-september")
    operation = contract.find_operation("GET", "/v2/pods")

    assert contract.answer_problems(operation, 200, "application/json", {"pods": []}) == [
        "$: missing property 'pagination'"
    ]
    assert contract.answer_problems(operation, 200, "text/html", {}) != []
