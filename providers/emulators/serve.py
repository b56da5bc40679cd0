"""`python -m providers.emulators.serve --cloud runpod --port 0 --state-dir DIR`: emulators in the foreground, until SIGTERM or
an admin call. Prints one JSON line a cloud when it is ready. `./inv emulate` runs it."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from providers.emulators.cloud_server import CloudServer
from providers.emulators.serving import CLOUDS, CONTRACTS, describe, make_server, make_settings


def main(arguments: Sequence[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    try:
        return asyncio.run(serve(options))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the emulators cannot start: {error}\n")
        return 1


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="emulate", description="RunPod v2 and Lambda Cloud as local HTTP servers.")
    parser.add_argument("--cloud", action="append", choices=sorted(CLOUDS), help="repeatable; default: all")
    parser.add_argument("--port", type=int, default=0, help="of the first cloud, the others follow; 0: any free one")
    parser.add_argument("--state-dir", type=Path, required=True, help="machines' folders and histories go here")
    parser.add_argument("--speed", type=float, default=1.0, help="seconds of the cloud that pass in one of ours")
    parser.add_argument("--contract", choices=CONTRACTS, default="september", help="which form of RunPod's document")
    parser.add_argument("--foreign", type=int, default=0, help="machines of other owners in the account")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--api-key", default="", help="default: a random one")
    parser.add_argument("--no-machines", action="store_true", help="no processes behind pods and instances")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        type=read_fault,
        metavar="NAME[=JSON]",
        help="a knob to turn at the start",
    )
    parser.add_argument("--list-faults", action=ListFaults, nargs=0, help="print every knob and end")
    return parser


class ListFaults(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        from providers.emulators.knobs import LAMBDA_KNOBS, RUNPOD_KNOBS

        for cloud, knobs in (("runpod", RUNPOD_KNOBS), ("lambda", LAMBDA_KNOBS)):
            for knob in knobs:
                sys.stdout.write(f"{cloud:7} {knob.name:28} {knob.kind:6} {knob.about}\n")
        parser.exit()


def read_fault(text: str) -> dict[str, Any]:
    """`ssh_never` or `ssh_after_s=60` or `mode=A`."""
    name, has_value, value = text.partition("=")
    if not has_value:
        return {"name": name, "value": True}
    try:
        return {"name": name, "value": json.loads(value)}
    except ValueError:
        return {"name": name, "value": value}


async def serve(options: argparse.Namespace) -> int:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    clouds = options.cloud or sorted(CLOUDS)
    servers: list[CloudServer] = []
    try:
        for place, cloud in enumerate(clouds):
            servers.append(await start_one(options, cloud, options.port + place if options.port else 0))
            sys.stdout.write(json.dumps(describe(servers[-1])) + "\n")
            sys.stdout.flush()
        waits = [
            asyncio.create_task(event.wait()) for event in (stopped, *(server.account.stopped for server in servers))
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
    return 0


async def start_one(options: argparse.Namespace, cloud: str, port: int) -> CloudServer:
    settings = make_settings(
        state_dir=options.state_dir / cloud,
        api_key=options.api_key,
        speed=options.speed,
        seed=options.seed,
        contract=options.contract,
        real_machines=not options.no_machines,
        foreign=options.foreign,
    )
    server = make_server(cloud, settings)
    for fault in options.fault:
        # With several clouds, a knob is turned on those that have it.
        if server.account.faults.knows(fault["name"]) or len(options.cloud or CLOUDS) == 1:
            server.account.faults.set(fault["name"], fault["value"])
    await server.start(port)
    return server


if __name__ == "__main__":
    sys.exit(main())
