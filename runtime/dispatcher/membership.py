"""Turns machines' records into replicas: joins new ones, drains and removes those that leave. Run by the dispatcher."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

from yarl import URL

from runtime.dispatcher.fleet import Fleet
from runtime.dispatcher.machines_watch import INTERVAL_S, MachinesWatch, Sighting
from runtime.dispatcher.manifest import Manifest
from runtime.dispatcher.replica import Link, Replica
from runtime.engines.fast_http import FastTransport
from runtime.engines.heartbeat import beat
from runtime.engines.tunnel import Tunnel
from schemas.errors import SpecError
from schemas.machine import MachineRecord
from schemas.ssh import SshTarget, write_known_hosts


class Membership:
    """Who is in the fleet and why; `key` is the bearer key of the engines."""

    def __init__(self, manifest: Manifest, fleet: Fleet, *, key: str) -> None:
        self._manifest = manifest
        self._fleet = fleet
        self._key = key
        self._watch = MachinesWatch(Path(manifest.machines_dir))
        self._members: dict[int, tuple[MachineRecord, Replica]] = {}
        self._drained: set[tuple[int, int, str]] = set()

    async def follow(self) -> None:
        """Look at the machines' records until cancelled; servers that run already join at once and stay."""
        for index, base_url in enumerate(self._manifest.base_urls):
            _check_base_url(base_url)
            self._fleet.join(self._make_server_replica(index, base_url))
        if self._manifest.base_urls:
            await asyncio.Event().wait()
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL_S)

    async def look(self) -> None:
        """Act on what is there now."""
        sightings = self._watch.look()
        for index, (record, replica) in list(self._members.items()):
            sighting = sightings.get(index)
            if sighting is None or _place(sighting.record) != _place(record):
                del self._members[index]
                await self._fleet.leave(replica)
            elif sighting.is_leaving:
                await self._drain(record, replica)
        for index, sighting in sightings.items():
            if index not in self._members:
                self._greet(sighting)

    async def _drain(self, record: MachineRecord, replica: Replica) -> None:
        replica.drain()
        if replica.in_flight == 0:
            del self._members[record.index]
            await self._fleet.leave(replica)
            self._drained.add((record.index, record.attempt, record.id))
            self._watch.confirm_drained(record)

    def _greet(self, sighting: Sighting) -> None:
        record = sighting.record
        identity = (record.index, record.attempt, record.id)
        if sighting.is_leaving and identity not in self._drained:
            self._drained.add(identity)
            self._watch.confirm_drained(record)
        elif identity not in self._drained:
            replica = self._make_machine_replica(record)
            self._members[record.index] = (record, replica)
            self._fleet.join(replica)

    def _make_machine_replica(self, record: MachineRecord) -> Replica:
        folder = Path(self._manifest.socket_dir)
        known_hosts = folder / f"{record.index}.known_hosts"
        write_known_hosts(known_hosts, record.name, record.host_key)
        target = SshTarget(
            host=record.host,
            port=record.port,
            user=record.user,
            key_file=self._manifest.ssh_key_file,
            known_hosts_file=str(known_hosts),
            alias=record.name,
        )
        socket_path = folder / f"{record.index}.sock"
        tunnel = Tunnel(target, socket_path=socket_path, engine_port=record.engine_port)
        transport = FastTransport(
            "http://engine", endpoint=self._manifest.endpoint, key=self._key, socket_path=socket_path
        )
        return Replica(
            record.name,
            record.index,
            transport,
            cap=self._manifest.options.max_concurrency,
            companions=(tunnel.run, functools.partial(beat, target)),
            is_reachable=lambda: tunnel.is_up,
        )

    def _make_server_replica(self, index: int, base_url: str) -> Replica:
        transport = _open_transport(base_url, endpoint=self._manifest.endpoint, key=self._key)
        cap = self._manifest.options.max_concurrency
        return Replica(base_url, index, transport, cap=cap)


def _open_transport(base_url: str, *, endpoint: str, key: str) -> Link:
    """Plain HTTP the fast way; TLS and names with a password in them are for aiohttp."""
    url = URL(base_url)
    if url.scheme == "http" and url.user is None:
        return FastTransport(base_url, endpoint=endpoint, key=key)
    from runtime.engines.transport import Transport

    return Transport(base_url, endpoint=endpoint, key=key)


def _check_base_url(base_url: str) -> None:
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        fix = "Write it like http://127.0.0.1:8000 or https://host/v1."
        raise SpecError("this is not the URL of a server", where=base_url, fix=fix)


def _place(record: MachineRecord) -> tuple[object, ...]:
    """What makes it this machine, reached in this way."""
    return (
        record.attempt,
        record.id,
        record.host,
        record.port,
        record.user,
        record.host_key,
        record.engine_port,
    )
