"""The process behind `pulumi-resource-command`: serves the engine that started it, and ends with that engine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import grpc.aio  # type: ignore[import-untyped]
from pulumi.runtime.proto import provider_pb2_grpc

from toolchain.command_plugin.engine_log import EngineLog
from toolchain.command_plugin.servicer import CommandServicer

_POLL_S = 0.05
_MESSAGE_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def main() -> None:
    addresses = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if not addresses:
        sys.exit("pulumi-resource-command: started by the Pulumi engine, with the engine's address")
    asyncio.run(_serve(addresses[-1], parent=os.getppid()))


async def _serve(engine_address: str, parent: int) -> None:
    engine_log = EngineLog(engine_address)
    servicer = CommandServicer(engine_log)
    server = grpc.aio.server(options=_MESSAGE_OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")  # the engine reads the first line
    sys.stdout.flush()
    await _wait_for_the_end(servicer, parent)
    await servicer.cancel_all()
    await server.stop(grace=0.2)
    await engine_log.close()


async def _wait_for_the_end(servicer: CommandServicer, parent: int) -> None:
    """Return on SIGTERM, when the engine is gone, or on SIGINT once nothing runs.

    The engine says goodbye with SIGINT when all is done; while a command runs, the same signal is only somebody's
    Ctrl-C, and what it means for the command is for the engine to say (Cancel, or the end of the call).
    """
    terminated, interrupted = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminated.set)
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    while os.getppid() == parent:
        if terminated.is_set() or (interrupted.is_set() and not servicer.is_busy):
            return
        await asyncio.sleep(_POLL_S)


main()
