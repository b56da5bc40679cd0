"""The guard of the unit tests holds what it promises."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stacks.run_folder import PROJECT, get_home

pytest_plugins = ["pytester"]

PROBES = {
    "an address": "socket.create_connection(('192.0.2.1', 80), timeout=0.1)",
    "a name": "socket.getaddrinfo('example.invalid', 443)",
    "an error that the code hides": (
        "try:\n        socket.socket().connect(('192.0.2.1', 80))\n    except BaseException:\n        pass"
    ),
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_reaching_for_another_computer_fails_a_unit_test(probe: str, pytester: pytest.Pytester) -> None:
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(f"import socket\n\ndef test_it():\n    {probe}\n")

    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")

    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) >= 1
    result.stdout.fnmatch_lines(["*a unit test reached for*"])


def test_this_computer_may_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())

        assert client.getpeername() == server.getsockname()


def test_runs_are_kept_away_from_the_checkout() -> None:
    assert PROJECT not in get_home().parents


def test_no_key_of_a_cloud_is_left_in_the_environment() -> None:
    assert [name for name in os.environ if name.startswith(("RUNPOD_", "LAMBDA_CLOUD_", "AWS_"))] == []
