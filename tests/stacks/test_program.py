"""The Pulumi program: which resources a plan declares, what must exist before what, and what is marked as secret."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pulumi
import pulumi_command
import pytest
from google.protobuf import json_format
from pulumi.runtime.mocks import MockMonitor, MockResourceArgs, Mocks

from runtime.dispatcher.manifest import Manifest
from schemas.errors import CredentialError
from schemas.job import Candidate, Dispatch, Limits
from schemas.machine import MachineRecord
from stacks.planning.plan import Plan
from stacks.program import declare_stack, make_manifest, make_socket_folder
from stacks.run_folder import RunFolder
from stacks.runs.attempts import Attempt, save_attempts
from tests.stacks.run_files import (
    make_folder,
    make_job,
    make_offer,
    make_progress,
    make_template,
    plan_for,
    write_progress,
)

# Loaded at its first use, with a warning of its own about what nobody here uses.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    assert pulumi_command.remote.Command

SECRET_MARK = "4dabf18193072939515e22adb298388d"
PRIVATE_KEY, ENGINE_KEY = "PRIVATE-KEY-TEXT", "engine-key-text"


class Declared:
    """One registered resource: its inputs, and the names of what it waits for."""

    def __init__(self, request: Any) -> None:
        self.name = request.name
        self.type = request.type
        self.inputs: dict[str, Any] = json_format.MessageToDict(request.object)
        self.needs = {urn.rsplit("::", 1)[-1] for urn in request.dependencies}
        self.deleted_with = request.deletedWith.rsplit("::", 1)[-1]
        self.deletes_first = request.deleteBeforeReplace
        self.secret_outputs = set(request.additionalSecretOutputs)

    def is_secret(self, name: str) -> bool:
        value = self.inputs[name]
        return isinstance(value, dict) and SECRET_MARK in value

    def reveal(self, name: str) -> Any:
        value = self.inputs[name]
        return value["value"] if self.is_secret(name) else value


class Engine(Mocks):
    """Gives every resource what its provider would, secrets marked as the engine marks them."""

    cloud = "local"

    def call(self, _args: Any) -> Any:
        return {}, None

    def new_resource(self, args: MockResourceArgs) -> Any:
        made: dict[str, Any] = {
            "lease": {
                "token": "abcdefghijkl",
                "expires_at": 1_790_003_600,
                "public_key": "ssh-ed25519 AAAA",
                "private_key": pulumi.Output.secret(PRIVATE_KEY),
                "engine_key": pulumi.Output.secret(ENGINE_KEY),
            },
            "machine": {
                "cloud": self.cloud,
                "machine_name": "lh-abcdefghijkl-0x1-tlqdn4",
                "choice": 0,
                "host_key": "ssh-ed25519 BBBB",
                "price_usd_per_hour": 2.5,
                "created_at": 1_790_000_000.0,
            },
            "endpoint": {"host": "127.0.0.1", "port": 2222, "user": "root"},
        }
        return f"id-{args.name}", {**args.inputs, **made.get(args.name.split("-")[0], {})}


class Monitor(MockMonitor):
    def __init__(self) -> None:
        super().__init__(Engine())
        self.declared: dict[str, Declared] = {}

    def RegisterResource(self, request: Any) -> Any:
        if request.type != "pulumi:pulumi:Stack":
            self.declared[request.name] = Declared(request)
        return super().RegisterResource(request)


@pytest.fixture(autouse=True)
def close_loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pulumi makes a loop for every thread of its mocks and leaves them open."""
    made: list[asyncio.AbstractEventLoop] = []
    make = asyncio.new_event_loop

    def make_and_remember() -> asyncio.AbstractEventLoop:
        made.append(make())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", make_and_remember)
    asyncio.set_event_loop(make_and_remember())
    yield
    asyncio.set_event_loop(None)
    for loop in made:
        loop.close()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_folder(tmp_path)


def declare(folder: RunFolder, plan: Plan | None = None, *, by_hand: bool = False) -> dict[str, Declared]:
    monitor = Monitor()
    chosen = plan or plan_for(make_job(replicas=2))
    pulumi.runtime.set_mocks(monitor.mocks, project="leasehold", stack=chosen.run, preview=False, monitor=monitor)

    @pulumi.runtime.test
    def program() -> None:
        declare_stack(chosen, folder, by_hand=by_hand)

    program()
    return monitor.declared


def test_a_plan_of_two_machines_is_these_resources(folder: RunFolder) -> None:
    declared = declare(folder)

    chain = ("machine", "endpoint", "engine", "join")
    assert set(declared) == {"lease", "dispatch", *(f"{step}-{index}" for step in chain for index in (0, 1))}


def test_the_arrows_are_those_of_the_drawing(folder: RunFolder) -> None:
    declared = declare(folder)

    assert declared["lease"].needs == set()
    assert declared["dispatch"].needs == {"lease"}
    assert declared["machine-0"].needs == {"lease"}
    assert declared["endpoint-0"].needs == {"machine-0"}
    assert {"endpoint-0", "machine-0", "lease"} >= declared["engine-0"].needs >= {"endpoint-0", "machine-0"}
    assert declared["join-0"].needs >= {"engine-0", "dispatch"}


def test_machines_do_not_wait_for_each_other_nor_for_the_dispatcher(folder: RunFolder) -> None:
    declared = declare(folder)

    for name in ("machine-1", "endpoint-1", "engine-1"):
        assert not {each for each in declared[name].needs if each.endswith("-0") or each == "dispatch"}


def test_what_lives_on_a_machine_goes_with_it(folder: RunFolder) -> None:
    declared = declare(folder)

    assert declared["endpoint-1"].deleted_with == declared["engine-1"].deleted_with == "machine-1"
    assert "delete" not in declared["engine-0"].inputs


def test_what_must_not_be_there_twice_is_deleted_first(folder: RunFolder) -> None:
    declared = declare(folder)

    assert (
        declared["dispatch"].deletes_first and declared["engine-0"].deletes_first and declared["join-0"].deletes_first
    )


def test_another_machine_makes_engine_and_join_anew(folder: RunFolder) -> None:
    declared = declare(folder)

    assert declared["engine-0"].inputs["triggers"] == declared["join-0"].inputs["triggers"] == ["id-machine-0"]


def test_secrets_are_marked_and_nowhere_in_clear(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    plan = plan_for(make_job(), template=make_template(secret="env:HF_TOKEN"))

    declared = declare(folder, plan)

    engine = declared["engine-0"]
    assert engine.is_secret("stdin") and engine.is_secret("connection")
    assert engine.reveal("stdin") == f"{ENGINE_KEY}\nhf_secret\n"
    assert {"private_key", "engine_key"} <= declared["lease"].secret_outputs
    clear = json.dumps(
        {
            each.name: {name: value for name, value in each.inputs.items() if not each.is_secret(name)}
            for each in declared.values()
        }
    )
    for secret in ("hf_secret", PRIVATE_KEY, ENGINE_KEY):
        assert secret not in clear


def test_the_engines_key_comes_alone_where_no_token_is_needed(folder: RunFolder) -> None:
    assert declare(folder)["engine-0"].reveal("stdin") == f"{ENGINE_KEY}\n\n"


def test_a_secret_that_is_missing_stops_the_program(folder: RunFolder) -> None:
    plan = plan_for(make_job(), template=make_template(secret="env:NO_SUCH_TOKEN"))

    with pytest.raises(CredentialError, match="NO_SUCH_TOKEN"):
        declare(folder, plan)


def test_the_connection_is_to_the_endpoint_with_the_pinned_key(folder: RunFolder) -> None:
    connection = declare(folder)["engine-0"].reveal("connection")

    assert (connection["host"], connection["port"], connection["user"]) == ("127.0.0.1", 2222, "root")
    assert connection["hostKey"] == "ssh-ed25519 BBBB"


def test_each_engine_listens_on_its_own_machines_port(folder: RunFolder) -> None:
    declared = declare(folder)

    for index, port in ((0, 20000), (1, 20001)):
        assert f"port={port}\n" in declared[f"engine-{index}"].inputs["create"]


def test_without_the_opt_in_no_key_is_given_to_any_machine(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "cloud", "lambda")

    assert not [name for name in declare(folder) if name.startswith("dead-man")]


def test_an_instance_gets_the_key_before_its_engine_starts_and_the_key_stands_nowhere(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "cloud", "lambda")
    monkeypatch.setenv("LAMBDA_CLOUD_API_KEY", "secret_lambda_key")
    plan = plan_for(make_job(replicas=2, limits=Limits(dead_man="account_key", heartbeat_minutes=5)))

    declared = declare(folder, plan)

    create = declared["dead-man-1"].inputs["create"]
    assert declared["engine-1"].needs >= {"dead-man-1"}
    assert declared["dead-man-1"].deleted_with == "machine-1"
    assert declared["dead-man-1"].inputs["triggers"] == ["id-machine-1"]
    for words in ("LEASEHOLD_INSTANCE_ID=id-machine-1\n", "EXPIRES_AT=1790003600\n", "TIMEOUT_S=300\n"):
        assert words in create
    assert "secret_lambda_key" not in json.dumps([each.inputs for each in declared.values()])


def test_a_machine_of_another_cloud_gets_no_account_key(folder: RunFolder) -> None:
    declared = declare(folder, plan_for(make_job(limits=Limits(dead_man="account_key"))))

    assert declared["dead-man-0"].inputs["create"] == "exit 0\n"


def test_the_joined_record_is_whole_and_typed(folder: RunFolder) -> None:
    record = msgspec.json.decode(declare(folder)["join-0"].inputs["stdin"], type=MachineRecord)

    assert (record.index, record.attempt, record.id, record.port) == (0, 1, "id-machine-0", 2222)
    assert (record.engine_port, record.price_usd_per_hour) == (20000, 2.5)


def test_raised_attempts_and_left_out_offers_reach_their_machine_alone(folder: RunFolder) -> None:
    save_attempts(folder.attempts, {1: Attempt(attempt=3, left_out=("local/cpu/1//local",))})

    declared = declare(folder)

    assert declared["machine-1"].inputs["attempt"] == 3
    assert declared["machine-1"].inputs["left_out"] == ["local/cpu/1//local"]
    assert (declared["machine-0"].inputs["attempt"], declared["machine-0"].inputs["left_out"]) == (1, [])


def test_a_machine_gets_the_lease_the_choices_and_the_heartbeat(folder: RunFolder) -> None:
    candidate = Candidate(cloud="local", image="mine:1")
    plan = plan_for(make_job(candidates=[candidate], limits=Limits(heartbeat_minutes=5)), make_offer())

    inputs = declare(folder, plan)["machine-0"].inputs

    assert (inputs["token"], inputs["expires_at"]) == ("abcdefghijkl", 1_790_003_600)
    assert [choice["image"] for choice in inputs["choices"]] == ["mine:1"]
    assert inputs["heartbeat_timeout_s"] == 300


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_when_the_batch_is_over_only_the_lease_is_left(folder: RunFolder, state: str) -> None:
    write_progress(folder, make_progress(state, stop_reason="batch_cancelled" if state == "stopped" else None))

    assert set(declare(folder)) == {"lease"}


@pytest.mark.parametrize("state", ["waiting", "running", "draining", "stopped", "failed"])
def test_while_something_is_left_to_do_machines_are_declared(folder: RunFolder, state: str) -> None:
    write_progress(folder, make_progress(state))

    assert "machine-0" in declare(folder)


def test_a_torn_progress_does_not_end_the_batch(folder: RunFolder) -> None:
    folder.progress.write_bytes(b'{"state": "finished"')

    assert "machine-0" in declare(folder)


def test_only_plain_pulumi_waits_for_the_end(folder: RunFolder) -> None:
    assert "done" not in declare(folder)

    done = declare(folder, by_hand=True)["done"]
    assert done.needs == {"dispatch"}
    assert "stacks.lifecycle.done" in done.inputs["create"]
    assert "delete" not in done.inputs


def test_the_dispatcher_is_told_what_the_job_says(folder: RunFolder) -> None:
    dispatch = Dispatch(
        max_concurrency=7, max_retries=2, request_timeout_s=9.0, order="prefix", ordered=True, hedge=False
    )
    plan = plan_for(make_job(dispatch=dispatch, replicas=3, min_replicas=2), line_limit=11)

    manifest = make_manifest(plan, folder)

    assert msgspec.json.decode(declare(folder, plan)["dispatch"].inputs["stdin"], type=Manifest) == manifest
    assert (manifest.replicas, manifest.min_replicas) == (3, 2)
    assert manifest.deadline == plan.created_at + plan.lifetime_s
    options = msgspec.to_builtins(manifest.options)
    assert options == {**msgspec.to_builtins(dispatch), "line_limit": 11}


def test_the_socket_folder_is_short_however_deep_the_run_is() -> None:
    deep = Path("/home") / "/".join(["a-long-name"] * 30)

    made = make_socket_folder(deep)

    assert len(f"{made}/1000.sock.x") < 107
    assert made == make_socket_folder(deep) != make_socket_folder(deep / "other")
