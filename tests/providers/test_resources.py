"""The dynamic resources: their names and inputs are a file format; a delete never raises; nothing secret is pickled."""

from __future__ import annotations

import base64
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pulumi.dynamic
import pulumi.dynamic.dynamic
import pytest

from providers import provider_host, resources
from providers.choice import Choice
from providers.closed_cloud import ClosedCloud
from providers.lease.intents import load_intents
from providers.lease.lease import load_lease, open_lease, revoke_lease
from providers.lease.termination import load_unconfirmed
from providers.provider_host import widen_provider_host
from providers.resources import (
    EndpointInputs,
    EndpointProvider,
    LeaseInputs,
    LeaseProvider,
    MachineInputs,
    MachineProvider,
    ResourceFailed,
)
from schemas.errors import CredentialError
from schemas.events import read_events
from schemas.failure import read_failures
from tests.providers.scripted_cloud import FakeClock, ScriptedCloud, make_offer

PROVIDERS = (LeaseProvider, MachineProvider, EndpointProvider)
FAR = 4_000_000_000


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the engine were watched already: the watcher ends its process, which is this one."""
    event = threading.Event()
    event.set()
    monkeypatch.setattr(provider_host, "_WATCHING", event)


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> ScriptedCloud:
    cloud = ScriptedCloud("a", FakeClock())
    monkeypatch.setattr(resources, "open_clouds", lambda names: dict.fromkeys(names, cloud))
    return cloud


def as_pulumi_gives(props: dict[str, Any]) -> dict[str, Any]:
    """The inputs as a provider gets them: every number a float, outputs that are not there yet None."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [convert(each) for each in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    return {**convert(props), "__provider": "x"}


def make_lease_props(run_dir: Path) -> dict[str, Any]:
    inputs = LeaseInputs(
        run_dir=str(run_dir), run="t-1", lifetime_s=3600, clouds=("a",), settle_s=2, release_deadline_s=600
    )
    return as_pulumi_gives(msgspec.to_builtins(inputs))


def make_machine_props(run_dir: Path, **fields: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "index": 2,
        "attempt": 1,
        "token": "abcdefghijkl",
        "expires_at": FAR,
        "public_key": "ssh-ed25519 AAAA",
        "choices": (
            Choice(offer=make_offer("a", "r1")),
            Choice(offer=make_offer("a", "r2"), image="mine:1", disk_gb=50),
        ),
        "heartbeat_timeout_s": 1800,
        "settle_s": 0.1,
    }
    return as_pulumi_gives(msgspec.to_builtins(MachineInputs(run_dir=str(run_dir), **(values | fields))))


def open_for(run_dir: Path) -> None:
    (run_dir / "hostkeys").mkdir()
    open_lease(run_dir, run="t-1", expires_at=FAR, clouds=["a"], now=0.0, make_token=lambda: "abcdefghijkl")


def list_events(run_dir: Path) -> list[str]:
    return [event.event for event, _ in read_events(run_dir / "events.jsonl")]


def test_modules_and_names_are_those_that_stand_in_every_stacks_state() -> None:
    named = [f"{each.__module__}.{each.__qualname__}" for each in PROVIDERS]

    assert named == [
        "providers.resources.LeaseProvider",
        "providers.resources.MachineProvider",
        "providers.resources.EndpointProvider",
    ]
    assert [each.__name__ for each in (resources.Lease, resources.Machine, resources.Endpoint)] == [
        "Lease",
        "Machine",
        "Endpoint",
    ]


@pytest.mark.parametrize("record", [LeaseInputs, MachineInputs, EndpointInputs])
def test_inputs_have_the_names_that_older_stacks_have_stored(record: type[msgspec.Struct]) -> None:
    stored = {
        LeaseInputs: "run_dir run lifetime_s clouds settle_s release_deadline_s",
        MachineInputs: (
            "run_dir index attempt token expires_at public_key choices left_out heartbeat_timeout_s settle_s"
        ),
        EndpointInputs: "run_dir index attempt cloud machine_id machine_name host_key boot_minutes",
    }

    assert list(record.__struct_fields__) == stored[record].split()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_is_stored_by_its_name_alone(provider: type[resources.LeaseholdProvider]) -> None:
    made = provider()

    stored = pulumi.dynamic.dynamic.serialize_provider(made)
    pickled = pickle.dumps(made)

    assert vars(made) == {}
    assert len(pickled) < 200 and len(stored) < 300
    assert provider.__name__.encode() in base64.b64decode(stored)
    assert type(pickle.loads(pickled)) is provider


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_step_of_a_resource_is_ours_and_not_the_base_classes(
    provider: type[resources.LeaseholdProvider],
) -> None:
    for step in ("check", "diff", "create", "read", "update", "delete"):
        assert getattr(provider, step) is not getattr(pulumi.dynamic.ResourceProvider, step)


def test_an_update_keeps_what_was_made() -> None:
    result = MachineProvider().update("m", {"attempt": 1.0, "host_key": "k"}, {"attempt": 1.0, "left_out": ["x"]})

    assert result.outs == {"attempt": 1.0, "host_key": "k", "left_out": ["x"]}


@pytest.mark.parametrize(("old", "new", "replaced"), [(1.0, 2.0, True), (1.0, 1.0, False), (2.0, 1.0, False)])
def test_a_machine_is_replaced_only_when_its_attempt_is_raised(old: float, new: float, replaced: bool) -> None:
    diff = MachineProvider().diff("m", {"attempt": old}, {"attempt": new, "choices": [], "left_out": ["x"]})

    assert (diff.changes, diff.replaces) == (replaced, ["attempt"] if replaced else [])
    assert diff.delete_before_replace


def test_a_lease_is_never_replaced() -> None:
    assert LeaseProvider().diff("t", {"clouds": ["a"]}, {"clouds": ["b"], "lifetime_s": 1.0}).changes is False


def test_an_endpoint_is_replaced_with_its_machine() -> None:
    provider = EndpointProvider()

    assert provider.diff("e", {"machine_id": "m1"}, {"machine_id": "m2"}).replaces == ["machine_id"]
    assert provider.diff("e", {"machine_id": "m1", "boot_minutes": 5.0}, {"machine_id": "m1"}).changes is False


def test_inputs_come_through_pulumi_whole(tmp_path: Path) -> None:
    props = make_machine_props(tmp_path, left_out=("a/h100/1//r9",))

    read = resources._decode({**props, "cloud": None, "created_at": None}, MachineInputs)

    assert (read.index, read.attempt, read.expires_at, read.heartbeat_timeout_s) == (2, 1, FAR, 1800)
    assert type(read.index) is int and type(read.choices[1].disk_gb) is int
    assert read.choices[1] == Choice(offer=make_offer("a", "r2"), image="mine:1", disk_gb=50)
    assert read.left_out == ("a/h100/1//r9",)


def test_a_lease_is_made_once_with_its_keys(tmp_path: Path) -> None:
    first = LeaseProvider().create(make_lease_props(tmp_path))
    second = LeaseProvider().create(make_lease_props(tmp_path))

    assert first.id == second.id == load_lease(tmp_path).token
    assert first.outs == second.outs
    assert first.outs is not None and first.outs["public_key"].startswith("ssh-ed25519 ")
    assert len(first.outs["engine_key"]) == 48
    for name in ("id_ed25519", "engine.key", "lease.json"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_a_revoked_lease_is_not_made_again_and_the_reason_is_ours(tmp_path: Path) -> None:
    LeaseProvider().create(make_lease_props(tmp_path))
    revoke_lease(tmp_path, clock=FakeClock(), timeout_s=5)

    with pytest.raises(ResourceFailed) as caught:
        LeaseProvider().create(make_lease_props(tmp_path))

    assert "was revoked" in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert [(each.step, each.index, each.kind) for each in read_failures(tmp_path / "failures.jsonl")] == [
        ("lease", -1, "CancelledError")
    ]


def test_a_machine_is_made_and_told_with_everything_later_steps_need(tmp_path: Path, cloud: ScriptedCloud) -> None:
    open_for(tmp_path)

    made = MachineProvider().create(make_machine_props(tmp_path))

    assert made.outs is not None
    assert (made.id, made.outs["cloud"], made.outs["choice"], made.outs["region"]) == ("a-0", "a", 0, "r1")
    assert made.outs["machine_name"] == cloud.machines[0].name
    assert made.outs["host_key"] == (tmp_path / "hostkeys" / f"{cloud.machines[0].name}.pub").read_text().strip()
    assert list_events(tmp_path) == ["machine_created"]


def test_offers_that_are_left_out_are_not_tried(tmp_path: Path, cloud: ScriptedCloud) -> None:
    open_for(tmp_path)

    made = MachineProvider().create(make_machine_props(tmp_path, left_out=("a/h100/1//r1",)))

    assert made.outs is not None and made.outs["choice"] == 1


def test_a_machine_that_cannot_be_had_is_a_failure_with_its_index(tmp_path: Path, cloud: ScriptedCloud) -> None:
    open_for(tmp_path)
    cloud.launch_faults.extend(["no_capacity", "no_capacity"])

    with pytest.raises(ResourceFailed, match="no offer is left to try"):
        MachineProvider().create(make_machine_props(tmp_path))

    (failure,) = read_failures(tmp_path / "failures.jsonl")
    assert (failure.step, failure.index, failure.attempt, failure.kind, failure.exit_code) == (
        "machine", 2, 1, "NoCapacity", 11,
    )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, cloud: ScriptedCloud) -> Iterator[dict[str, Any]]:
    """The state of a machine that was made."""
    open_for(tmp_path)
    result = MachineProvider().create(make_machine_props(tmp_path))
    assert result.outs is not None
    yield as_pulumi_gives(result.outs)


def test_a_deleted_machine_is_gone_and_recorded(tmp_path: Path, cloud: ScriptedCloud, made: dict[str, Any]) -> None:
    MachineProvider().delete("a-0", made)

    assert cloud.alive == []
    assert load_intents(tmp_path).intents[-1].outcome == "deleted"
    assert list_events(tmp_path)[-1] == "machine_gone"


def test_deleting_twice_is_no_error(cloud: ScriptedCloud, made: dict[str, Any]) -> None:
    MachineProvider().delete("a-0", made)
    MachineProvider().delete("a-0", made)

    assert cloud.alive == []


def test_a_delete_that_cannot_reach_its_cloud_raises_nothing_and_is_listed(
    tmp_path: Path, cloud: ScriptedCloud, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = ClosedCloud(CredentialError("RUNPOD_API_KEY is not set"))
    monkeypatch.setattr(resources, "open_clouds", lambda names: dict.fromkeys(names, closed))

    MachineProvider().delete("a-0", made)

    assert [machine.id for machine in load_unconfirmed(tmp_path)] == ["a-0"]
    assert list_events(tmp_path)[-1] == "machine_unconfirmed"


def test_a_delete_on_another_computer_raises_nothing(
    tmp_path: Path, cloud: ScriptedCloud, made: dict[str, Any]
) -> None:
    elsewhere = {**made, "run_dir": str(tmp_path / "elsewhere" / "t-1")}

    MachineProvider().delete("a-0", elsewhere)

    assert cloud.alive == []


def test_a_delete_of_a_cloud_that_is_unknown_here_raises_nothing(
    tmp_path: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()

    MachineProvider().delete("a-0", {**made, "cloud": "moon"})

    assert list_events(tmp_path)[-1] == "machine_unconfirmed"


def test_an_endpoints_delete_does_nothing(cloud: ScriptedCloud, made: dict[str, Any]) -> None:
    EndpointProvider().delete("a-0@h:1", {})

    assert len(cloud.alive) == 1


def test_a_refresh_finds_a_machine_or_that_it_is_gone(cloud: ScriptedCloud, made: dict[str, Any]) -> None:
    provider = MachineProvider()
    assert provider.read("a-0", made).outs == made

    cloud.machines[0].gone_at = cloud.clock.time
    assert (provider.read("a-0", made).id, provider.read("a-0", made).outs) == ("", {})


def test_the_host_is_widened_and_never_narrowed() -> None:
    with ThreadPoolExecutor(max_workers=4) as narrow, ThreadPoolExecutor(max_workers=100) as wide:
        widen_provider_host(64)

        assert (narrow._max_workers, wide._max_workers) == (64, 100)


def test_no_secret_of_a_lease_is_in_events_or_failures(tmp_path: Path, cloud: ScriptedCloud) -> None:
    (tmp_path / "hostkeys").mkdir()
    outs = LeaseProvider().create(make_lease_props(tmp_path)).outs
    assert outs is not None
    cloud.launch_faults.append("refused")
    MachineProvider().create(make_machine_props(tmp_path, token=outs["token"], public_key=outs["public_key"]))

    told = (tmp_path / "events.jsonl").read_text() + (tmp_path / "intents.jsonl").read_text()
    assert "machine_created" in told
    assert outs["engine_key"] not in told and "PRIVATE KEY" not in told
