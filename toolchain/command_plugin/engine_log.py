"""Lines of a running command, sent to the engine that started us; the servicer makes one for all calls."""

from __future__ import annotations

import contextlib

import grpc.aio  # type: ignore[import-untyped]
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

_TIMEOUT_S = 5.0


class EngineLog:
    """Status lines: the engine shows the latest one beside the resource and keeps none."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._engine = engine_pb2_grpc.EngineStub(self._channel)

    async def write(self, urn: str, line: str) -> None:
        request = engine_pb2.LogRequest(severity=engine_pb2.INFO, message=line, urn=urn, ephemeral=True)
        # An engine that no longer listens is no reason to fail the command.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._engine.Log(request, timeout=_TIMEOUT_S)

    async def close(self) -> None:
        await self._channel.close()
