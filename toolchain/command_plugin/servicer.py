"""The resource-provider protocol for local and remote commands, as the engine calls it.

It stands in for the `command` plugin where that one cannot be downloaded, and behaves like it to a program.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Any, NoReturn, Protocol

import grpc  # type: ignore[import-untyped]
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from toolchain.command_plugin.difference import make_diff
from toolchain.command_plugin.engine_log import EngineLog
from toolchain.command_plugin.inputs import INPUT_NAMES, LOCAL, fill_defaults, find_problems
from toolchain.command_plugin.local_command import run_local
from toolchain.command_plugin.properties import UNKNOWN, Properties, make_struct, read_struct, reveal
from toolchain.command_plugin.recording import CommandFailed, Recording

VERSION = "1.2.1"


class Context(Protocol):
    """The part of a gRPC call's context that is used here."""

    async def abort(self, code: Any, details: str) -> NoReturn: ...


class CommandServicer(provider_pb2_grpc.ResourceProviderServicer):
    """Every command runs as a task of its own, so that Cancel, a broken call and a time limit end it in one way."""

    def __init__(self, engine_log: EngineLog) -> None:
        self._engine_log = engine_log
        self._tasks: set[asyncio.Task[Properties]] = set()
        self._is_cancelled = False

    @property
    def is_busy(self) -> bool:
        return bool(self._tasks)

    async def cancel_all(self) -> None:
        """End all running commands and refuse new ones."""
        self._is_cancelled = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def Handshake(self, request: Any, context: Context) -> provider_pb2.ProviderHandshakeResponse:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_resources=True)

    async def GetPluginInfo(self, request: Any, context: Context) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=VERSION)

    async def CheckConfig(self, request: Any, context: Context) -> provider_pb2.CheckResponse:
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request: Any, context: Context) -> provider_pb2.DiffResponse:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(self, request: Any, context: Context) -> provider_pb2.ConfigureResponse:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, acceptResources=True, supportsPreview=True)

    async def Check(self, request: provider_pb2.CheckRequest, context: Context) -> provider_pb2.CheckResponse:
        type_name = await _read_type(request.urn, context)
        inputs = read_struct(request.news)
        problems = [
            provider_pb2.CheckFailure(property=name, reason=reason) for name, reason in find_problems(type_name, inputs)
        ]
        filled = make_struct(fill_defaults(type_name, inputs))
        return provider_pb2.CheckResponse(inputs=filled, failures=problems)

    async def Diff(self, request: provider_pb2.DiffRequest, context: Context) -> provider_pb2.DiffResponse:
        old, new = read_struct(request.old_inputs or request.olds), read_struct(request.news)
        for name in request.ignoreChanges:
            new.pop(name, None)
            if name in old:
                new[name] = old[name]
        names = INPUT_NAMES[await _read_type(request.urn, context)]
        return make_diff({key: value for key, value in old.items() if key in names}, new)

    async def Create(self, request: provider_pb2.CreateRequest, context: Context) -> provider_pb2.CreateResponse:
        name = request.urn.rpartition("::")[2]
        inputs = read_struct(request.properties)
        command = None if request.preview else reveal(inputs.get("create"))
        nothing = {"stdout": UNKNOWN, "stderr": UNKNOWN} if request.preview else {"stdout": "", "stderr": ""}
        state = await self._run(command, inputs, nothing, request, context)
        return provider_pb2.CreateResponse(id=f"{name}{secrets.token_hex(4)}", properties=make_struct(state))

    async def Update(self, request: provider_pb2.UpdateRequest, context: Context) -> provider_pb2.UpdateResponse:
        inputs, previous = read_struct(request.news), _pick_outputs(read_struct(request.olds))
        if request.preview:
            return provider_pb2.UpdateResponse(properties=make_struct({**inputs, **dict.fromkeys(previous, UNKNOWN)}))
        command = reveal(inputs.get("update")) or reveal(inputs.get("create"))
        state = await self._run(command, inputs, previous, request, context)
        return provider_pb2.UpdateResponse(properties=make_struct(state))

    async def Delete(self, request: provider_pb2.DeleteRequest, context: Context) -> empty_pb2.Empty:
        state = read_struct(request.properties)
        await self._run(reveal(state.get("delete")), state, _pick_outputs(state), request, context)
        return empty_pb2.Empty()

    async def Read(self, request: provider_pb2.ReadRequest, context: Context) -> provider_pb2.ReadResponse:
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    async def Cancel(self, request: Any, context: Context) -> empty_pb2.Empty:
        await self.cancel_all()
        return empty_pb2.Empty()

    async def _run(
        self, command: str | None, inputs: Properties, previous: Properties, request: Any, context: Context
    ) -> Properties:
        """Run the command within the call's time limit; the result is the inputs with what the command printed."""
        type_name = await _read_type(request.urn, context)
        if not command:
            return {**inputs, **previous}
        if self._is_cancelled:
            await _fail(context, "context canceled")
        work = _run_command(type_name, command, reveal(inputs), reveal(previous), self._make_log(request.urn))
        task = asyncio.create_task(work)
        self._tasks.add(task)
        try:
            printed = await asyncio.wait_for(_wait_for(task), request.timeout or None)
        except TimeoutError:
            await _fail(context, f"context deadline exceeded: no end within {request.timeout:g} s")
        except CommandFailed as error:
            await _fail(context, str(error))
        finally:
            self._tasks.discard(task)
        return {**inputs, **printed}

    def _make_log(self, urn: str) -> Any:
        return partial(self._engine_log.write, urn)


async def _run_command(type_name: str, command: str, inputs: Properties, previous: Properties, log: Any) -> Properties:
    recording = Recording(log, inputs.get("logging"))
    extra_env = _make_previous_env(inputs, previous)
    if type_name == LOCAL:
        await run_local(command, inputs, extra_env, recording)
    else:
        # With it comes asyncssh, 0.15 s that a destroy saves: none of our remote commands has a delete.
        from toolchain.command_plugin.remote_command import run_remote

        await run_remote(command, inputs, extra_env, recording, log)
    return {"stdout": recording.stdout, "stderr": recording.stderr}


async def _wait_for(task: asyncio.Task[Properties]) -> Properties:
    """Wait for the task; when the waiter is cancelled the task is ended first, when the task is cancelled say so."""
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    if task.cancelled():
        raise CommandFailed("context canceled: the command was ended because the update was cancelled")
    return task.result()


def _make_previous_env(inputs: Properties, previous: Properties) -> dict[str, str]:
    if inputs.get("addPreviousOutputInEnv") is False:
        return {}
    texts = {"PULUMI_COMMAND_STDOUT": previous.get("stdout"), "PULUMI_COMMAND_STDERR": previous.get("stderr")}
    return {name: text for name, text in texts.items() if text}


def _pick_outputs(state: Properties) -> Properties:
    return {"stdout": state.get("stdout", ""), "stderr": state.get("stderr", "")}


async def _read_type(urn: str, context: Context) -> str:
    """Take the type out of urn:pulumi:stack::project::parent$type::name."""
    type_name = urn.split("::")[2].rpartition("$")[2]
    if type_name not in INPUT_NAMES:
        await _fail(context, f"{type_name} is not supported by this stand-in for the command plugin")
    return type_name


async def _fail(context: Context, message: str) -> NoReturn:
    await context.abort(grpc.StatusCode.UNKNOWN, message)
