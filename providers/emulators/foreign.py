"""Machines of other owners in the same account, with names that are not ours: no client may touch them. Made at start."""

from __future__ import annotations

from typing import Any

from providers.emulators.lambda_cloud.instance import Instance, find_kind, find_region
from providers.emulators.runpod.pod import Pod

_NAMES = ("training-box", "lh-notes", "jupyter", "render", "lh-", "leasehold-demo", "my pod")
_PRICE_USD_PER_HOUR = 0.69
_DAY_S = 86_400.0
# One in so many is a member of a cluster, which listings leave out.
_CLUSTER_EVERY = 25


def make_foreign_name(number: int) -> str:
    """Some of these look a little like ours."""
    return f"{_NAMES[number % len(_NAMES)]}-{number}"


def make_foreign_pods(pods: dict[str, Pod], count: int, now: float) -> None:
    for number in range(count):
        pod_id = f"foreign{number:07d}"
        created_at = now - _DAY_S + number
        config: dict[str, Any] = {
            "name": make_foreign_name(number),
            "image": "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404",
            "disk": 50,
            "ports": ["8888/http"],
            "env": {},
        }
        pods[pod_id] = Pod(
            id=pod_id,
            number=number + 1,
            config=config,
            cloud="SECURE",
            gpu_id="NVIDIA GeForce RTX 4090",
            gpu_count=1,
            cpu=None,
            region="EU-RO-1",
            price_usd_per_hour=_PRICE_USD_PER_HOUR,
            created_at=created_at,
            key=f"rpa_pod_foreign_{number}",
            made_by_request=0,
            status="RUNNING",
            started_at=created_at,
            ssh_at=created_at,
            cluster={"id": "cluster-1", "rank": number} if number % _CLUSTER_EVERY == _CLUSTER_EVERY - 1 else None,
            is_foreign=True,
        )


def make_foreign_instances(instances: dict[str, Instance], count: int, now: float) -> None:
    kind, region = find_kind("gpu_1x_a10"), find_region("us-east-1")
    assert kind is not None and region is not None
    for number in range(count):
        instance_id = f"{number:032x}"
        created_at = now - _DAY_S + number
        instances[instance_id] = Instance(
            id=instance_id,
            name=make_foreign_name(number),
            hostname="their-host",
            kind=kind,
            region=region,
            key_names=["their-key"],
            file_system_names=[],
            mounts=[],
            tags=[],
            created_at=created_at,
            made_by_request=0,
            status="active",
            ip_at=created_at,
            ssh_at=created_at,
            first_healthy=created_at,
            is_foreign=True,
        )
