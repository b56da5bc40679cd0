"""The Pulumi program: one stack is one run of a job. Called by stacks/__main__.py, which Pulumi runs for preview, up and refresh.

    Lease ──┬──> Dispatch ──────────────────────────────┐
            └──> Machine i ──> Endpoint i ──> Engine i ─┴─> Join i        i = 0..N-1
    Done  (only under plain `pulumi up`)

An arrow means: must exist before. Destroy runs it backwards, the Lease last. With limits.dead_man there is a DeadMan i
between Endpoint i and Engine i.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pulumi
from pulumi_command import local, remote

from providers.lambda_cloud.dead_man import render_dead_man_start
from providers.resources import Endpoint, Lease, LeaseInputs, Machine
from providers.settings import load_cloud_settings
from runtime.dispatcher.manifest import DispatchOptions, Manifest
from runtime.objects.object_settings import is_object_address
from schemas.machine import MachineRecord
from schemas.ssh import SshTarget
from schemas.status import Progress
from stacks.commands import (
    render_dispatch_start,
    render_dispatch_stop,
    render_done,
    render_join,
    render_key_delivery,
    render_leave,
)
from stacks.launch.engine_script import render_engine_start
from stacks.launch.launch import make_engine_launch
from stacks.launch.secret_reference import load_secret
from stacks.planning.plan import RELEASE_DEADLINE_S, Plan, PlannedMachine
from stacks.run_folder import RunFolder
from stacks.runs.attempts import Attempt, load_attempts


def declare_stack(plan: Plan, folder: RunFolder, *, by_hand: bool) -> None:
    """Declare every resource of the run; with nothing of the batch left to do, no machines."""
    lease = Lease("lease", _make_lease_inputs(plan, folder))
    pulumi.export("run", plan.run)
    pulumi.export("folder", str(folder.root))
    if _is_batch_over(folder):
        pulumi.export("machines", [])
        return
    dispatch = _declare_dispatch(plan, folder, lease)
    attempts = load_attempts(folder.attempts)
    machines = [
        _declare_machine(plan, folder, planned, attempts.get(planned.index, Attempt()), lease, dispatch)
        for planned in plan.machines
    ]
    if by_hand:
        create = render_done(folder, sys.executable)
        local.Command("done", create=create, opts=pulumi.ResourceOptions(depends_on=[dispatch]))
    pulumi.export("machines", [machine.machine_name for machine in machines])
    pulumi.export("output", str(folder.output))


def _make_lease_inputs(plan: Plan, folder: RunFolder) -> LeaseInputs:
    return LeaseInputs(
        run_dir=str(folder.root),
        run=plan.run,
        lifetime_s=plan.lifetime_s,
        clouds=plan.clouds,
        settle_s=plan.settle_s,
        release_deadline_s=RELEASE_DEADLINE_S,
    )


def _is_batch_over(folder: RunFolder) -> bool:
    try:
        progress = msgspec.json.decode(folder.progress.read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return progress.state == "finished" or (progress.state == "stopped" and progress.stop_reason is not None)


def _declare_dispatch(plan: Plan, folder: RunFolder, lease: Lease) -> local.Command:
    manifest = make_manifest(plan, folder)
    return local.Command(
        "dispatch",
        create=render_dispatch_start(folder, manifest.socket_dir, sys.executable),
        delete=render_dispatch_stop(folder, manifest.socket_dir, sys.executable),
        stdin=msgspec.json.encode(manifest).decode(),
        opts=pulumi.ResourceOptions(depends_on=[lease], delete_before_replace=True),
    )


def make_manifest(plan: Plan, folder: RunFolder) -> Manifest:
    """What the dispatcher of this run is told."""
    job = plan.job
    return Manifest(
        run=plan.run,
        input=str(folder.input) if plan.staged else job.input,
        output_dir=str(folder.root),
        endpoint=job.endpoint,
        model=plan.template.model,
        replicas=job.machines.replicas,
        min_replicas=job.machines.min_replicas,
        deadline=plan.created_at + plan.lifetime_s,
        options=DispatchOptions(
            max_concurrency=job.dispatch.max_concurrency,
            max_retries=job.dispatch.max_retries,
            request_timeout_s=job.dispatch.request_timeout_s,
            order=job.dispatch.order,
            ordered=job.dispatch.ordered,
            hedge=job.dispatch.hedge,
            line_limit=plan.line_limit,
        ),
        machines_dir=str(folder.machines),
        socket_dir=make_socket_folder(folder.root),
        ssh_key_file=str(folder.ssh_key),
        engine_key_file=str(folder.engine_key),
        on_end=(sys.executable, "-m", "stacks.lifecycle.orphan_release", str(folder.root)),
        budget_file=str(folder.budget),
        seal=is_object_address(job.output),
    )


def make_socket_folder(run_dir: Path) -> str:
    """A short path for unix sockets, which may have 107 bytes; the dispatcher makes it, private to this user."""
    digest = hashlib.sha256(str(run_dir).encode()).hexdigest()[:10]
    return str(Path(tempfile.gettempdir()) / f"lh-{os.getuid()}-{digest}")


def _declare_machine(
    plan: Plan, folder: RunFolder, planned: PlannedMachine, attempt: Attempt, lease: Lease, dispatch: local.Command
) -> Machine:
    machine = Machine(f"machine-{planned.index}", _make_machine_props(plan, folder, planned, attempt, lease))
    endpoint = _declare_endpoint(plan, folder, planned, attempt, machine)
    before = [_declare_dead_man(plan, folder, planned, lease, machine, endpoint)] if plan.job.limits.dead_man else []
    engine = _declare_engine(plan, planned, lease, machine, endpoint, before)
    local.Command(
        f"join-{planned.index}",
        create=render_join(folder, planned.index),
        delete=_render_leave(folder, planned, machine, endpoint),
        stdin=_render_record(planned, attempt, machine, endpoint),
        triggers=[machine.id],
        opts=pulumi.ResourceOptions(depends_on=[engine, dispatch], delete_before_replace=True),
    )
    return machine


def _make_machine_props(
    plan: Plan, folder: RunFolder, planned: PlannedMachine, attempt: Attempt, lease: Lease
) -> dict[str, Any]:
    return {
        "run_dir": str(folder.root),
        "index": planned.index,
        "attempt": attempt.attempt,
        "token": lease.token,
        "expires_at": lease.expires_at,
        "public_key": lease.public_key,
        "choices": msgspec.to_builtins(plan.choices),
        "left_out": list(attempt.left_out),
        "heartbeat_timeout_s": int(plan.job.limits.heartbeat_minutes * 60),
        "settle_s": plan.settle_s,
    }


def _declare_endpoint(
    plan: Plan, folder: RunFolder, planned: PlannedMachine, attempt: Attempt, machine: Machine
) -> Endpoint:
    props = {
        "run_dir": str(folder.root),
        "index": planned.index,
        "attempt": attempt.attempt,
        "cloud": machine.cloud,
        "machine_id": machine.id,
        "machine_name": machine.machine_name,
        "host_key": machine.host_key,
        "boot_minutes": plan.job.limits.boot_minutes,
    }
    return Endpoint(f"endpoint-{planned.index}", props, pulumi.ResourceOptions(deleted_with=machine))


def _declare_engine(
    plan: Plan,
    planned: PlannedMachine,
    lease: Lease,
    machine: Machine,
    endpoint: Endpoint,
    before: list[local.Command],
) -> remote.Command:
    """Start the engine; it has no delete: it goes with its machine, and SSH to one that is gone would block destroy."""
    launches = [
        make_engine_launch(plan.template, choice.offer, image=choice.image, port=planned.engine_port)
        for choice in plan.choices
    ]
    starts = [render_engine_start(launch) for launch in launches]
    reference = plan.template.spec.model_source.auth_secret_ref
    token = load_secret(reference, environ=os.environ, get_config=pulumi.Config().get)
    return remote.Command(
        f"engine-{planned.index}",
        connection=remote.ConnectionArgs(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            private_key=lease.private_key,
            host_key=machine.host_key,
            dial_error_limit=20,
            per_dial_timeout=15,
        ),
        create=machine.choice.apply(lambda index: starts[int(index)]),
        stdin=_render_secrets(lease, token),
        triggers=[machine.id],
        opts=pulumi.ResourceOptions(deleted_with=machine, delete_before_replace=True, depends_on=before),
    )


def _declare_dead_man(
    plan: Plan, folder: RunFolder, planned: PlannedMachine, lease: Lease, machine: Machine, endpoint: Endpoint
) -> local.Command:
    """Give an instance of Lambda what it needs to end itself; no engine starts on one that has not got it."""

    def render(values: dict[str, Any]) -> str:
        if values["cloud"] != "lambda":
            return "exit 0\n"
        settings = load_cloud_settings(os.environ)
        script = render_dead_man_start(
            instance_id=values["id"],
            api_url=settings.lambda_base_url,
            expires_at=int(values["expires_at"]),
            heartbeat_timeout_s=int(plan.job.limits.heartbeat_minutes * 60),
        )
        return render_key_delivery(_make_target(folder, values), "LAMBDA_CLOUD_API_KEY", script)

    create = pulumi.Output.all(
        cloud=machine.cloud,
        id=machine.id,
        name=machine.machine_name,
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        expires_at=lease.expires_at,
    ).apply(render)
    opts = pulumi.ResourceOptions(deleted_with=machine, delete_before_replace=True)
    return local.Command(f"dead-man-{planned.index}", create=create, triggers=[machine.id], opts=opts)


def _render_secrets(lease: Lease, token: str) -> pulumi.Output[str]:
    """What the start script reads: the engine's key, then the token of the model's hub or an empty line."""
    joined: pulumi.Output[str] = pulumi.Output.concat(lease.engine_key, "\n", token, "\n")
    return pulumi.Output.secret(joined)


def _render_record(
    planned: PlannedMachine, attempt: Attempt, machine: Machine, endpoint: Endpoint
) -> pulumi.Output[str]:
    def render(values: dict[str, Any]) -> str:
        record = MachineRecord(
            index=planned.index,
            attempt=attempt.attempt,
            cloud=values["cloud"],
            id=values["id"],
            name=values["name"],
            host=values["host"],
            port=int(values["port"]),
            user=values["user"],
            host_key=values["host_key"],
            engine_port=planned.engine_port,
            price_usd_per_hour=float(values["price"]),
            created_at=float(values["created_at"]),
        )
        return msgspec.json.encode(record).decode()

    return pulumi.Output.all(
        cloud=machine.cloud,
        id=machine.id,
        name=machine.machine_name,
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        host_key=machine.host_key,
        price=machine.price_usd_per_hour,
        created_at=machine.created_at,
    ).apply(render)


def _render_leave(
    folder: RunFolder, planned: PlannedMachine, machine: Machine, endpoint: Endpoint
) -> pulumi.Output[str]:
    def render(values: dict[str, Any]) -> str:
        return render_leave(folder, planned.index, _make_target(folder, values))

    return pulumi.Output.all(
        name=machine.machine_name, host=endpoint.host, port=endpoint.port, user=endpoint.user
    ).apply(render)


def _make_target(folder: RunFolder, values: dict[str, Any]) -> SshTarget:
    """Where a machine's SSH answers, from its endpoint's and its own outputs."""
    name = values["name"]
    return SshTarget(
        host=values["host"],
        port=int(values["port"]),
        user=values["user"],
        key_file=str(folder.ssh_key),
        known_hosts_file=str(folder.host_keys / f"{name}.known_hosts"),
        alias=name,
    )
