"""llama.cpp as an OpenAI server in this process, the engine of local machines; their `llamacpp-server` command runs it.

`python -m runtime.llamacpp_server --model builtin:tiny-chat --port 8000`
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import xllamacpp

from schemas.errors import EngineError, LeaseholdError, SpecError
from schemas.home_path import expand_home

BUILTIN = "builtin:"
MODELS_DIR = Path(__file__).parent / "models"
_MAGIC = b"GGUF"
_WARNINGS = 2  # llama.cpp's verbosity: errors 1, warnings 2, information 3


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What one server needs. context: tokens of one request, prompt and answer together; parallel: requests at once.

    max_tokens bounds an answer whose request sets no limit, 0 = only the context does. api_key "" means no key.
    is_repeatable: an answer at temperature 0 does not depend on what runs beside it.
    """

    model: Path
    alias: str
    host: str
    port: int
    api_key: str = ""
    parallel: int = 8
    context: int = 2048
    batch: int = 2048
    threads: int = 1
    max_tokens: int = 0
    embeddings: bool = False
    chat_template: str = ""
    is_repeatable: bool = False

    def __repr__(self) -> str:
        return f"ServerSettings(model={self.model!s}, alias={self.alias!r}, host={self.host!r}, port={self.port})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code: 0, 2 for a wrong argument, 6 when it cannot start."""
    stop = _catch_signals()
    try:
        settings = read_settings(arguments)
        server = start_server(settings)
    except LeaseholdError as error:
        _say(str(error))
        return error.exit_code
    slots = f"{settings.parallel} requests at once of {settings.context} tokens each"
    _say(f"{settings.alias} at {server.listening_address}, {slots}")
    stop.wait()
    # An orderly end would wait for the requests in flight; whoever stops the engine wants it gone.
    os._exit(0)


def read_settings(arguments: Sequence[str] | None = None) -> ServerSettings:
    """Turn command line arguments into settings; raises SpecError for what is wrong with them."""
    options = _make_parser().parse_args(arguments)
    model = find_model(options.model)
    is_builtin = options.model.startswith(BUILTIN)
    return ServerSettings(
        model=model,
        alias=options.alias or model.stem,
        host=options.host,
        port=options.port,
        api_key=_read_text(options.api_key_file, "API key").strip() if options.api_key_file else "",
        parallel=options.parallel,
        context=options.ctx,
        batch=options.batch,
        threads=options.threads or (1 if is_builtin else os.cpu_count() or 1),
        max_tokens=options.max_tokens if options.max_tokens is not None else 64 if is_builtin else 0,
        embeddings=options.embeddings,
        is_repeatable=is_builtin,
        chat_template=_read_text(options.chat_template_file, "chat template") if options.chat_template_file else "",
    )


def find_model(name: str) -> Path:
    """The file of `builtin:<name>` or of a path; raises SpecError when there is none or it is not a GGUF file."""
    builtin = {f"{BUILTIN}{path.stem}": path for path in MODELS_DIR.glob("*.gguf")}
    fix = f"Built in are {', '.join(sorted(builtin))}; anything else is the path of a .gguf file."
    path = builtin.get(name)
    if path is None and name.startswith(BUILTIN):
        raise SpecError("there is no such model", where=name, fix=fix)
    path = path or expand_home(name)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise SpecError(f"cannot read the model: {error.strerror}", where=name, fix=fix) from error
    if magic != _MAGIC:
        raise SpecError("the model is not a GGUF file", where=name, fix=fix)
    return path


def start_server(settings: ServerSettings) -> xllamacpp.Server:
    """Load the model and listen; raises EngineError when the port is taken or llama.cpp refuses the model."""
    _check_port(settings.host, settings.port)
    try:
        return xllamacpp.Server(make_parameters(settings))
    except RuntimeError as error:
        raise EngineError(
            "llama.cpp could not load the model or listen",
            where=str(settings.model),
            fix="The lines above say which; a context too large for the memory is a usual reason.",
        ) from error


_HTTP_THREADS = 128


def make_parameters(settings: ServerSettings) -> xllamacpp.CommonParams:
    """llama.cpp's parameters, with the ones that its defaults get wrong for batches on few cores."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(settings.model)
    parameters.model_alias = {settings.alias}
    parameters.hostnames = [settings.host]
    parameters.port = settings.port
    parameters.api_keys = [settings.api_key] if settings.api_key else []
    parameters.n_parallel = settings.parallel
    parameters.n_ctx = settings.context * settings.parallel  # llama.cpp divides it among the requests
    parameters.n_batch = settings.batch
    parameters.n_predict = settings.max_tokens or -1
    parameters.cpuparams.n_threads = settings.threads
    parameters.cpuparams_batch.n_threads = settings.threads
    # Each connection that is kept alive holds one of these; with the few of the default, further requests wait for them.
    parameters.n_threads_http = _HTTP_THREADS
    parameters.cache_ram_mib = 0
    parameters.cache_idle_slots = False
    parameters.fit_params = False
    parameters.warmup = False
    parameters.ui = False
    parameters.endpoint_metrics = True
    parameters.embedding = settings.embeddings
    parameters.chat_template = settings.chat_template
    parameters.verbosity = _WARNINGS
    if settings.is_repeatable:
        # Flash attention adds up in another order when the step is larger.
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if settings.embeddings:
        # A text must fit into one step to be pooled.
        parameters.n_ubatch = parameters.n_batch = max(settings.batch, settings.context)
    return parameters


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamacpp-server", description="An OpenAI server with llama.cpp inside.")
    parser.add_argument("--model", required=True, help="builtin:NAME, or the path of a .gguf file")
    parser.add_argument("--alias", default="", help="name that requests give as their model (default: the file's)")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_whole_number(1, 65535), required=True)
    parser.add_argument("--api-key-file", type=Path, help="file with the key that requests must bear")
    parser.add_argument("--parallel", type=_whole_number(1, 256), default=8, help="requests at once")
    parser.add_argument("--ctx", type=_whole_number(64, 1 << 20), default=2048, help="tokens of one request")
    parser.add_argument("--batch", type=_whole_number(32, 1 << 16), default=2048, help="tokens of one step")
    parser.add_argument(
        "--threads", type=_whole_number(1, 1024), default=0, help="default: all, 1 for a built-in model"
    )
    parser.add_argument("--max-tokens", type=_whole_number(0, 1 << 20), help="for requests that set no limit, 0: none")
    parser.add_argument("--embeddings", action="store_true", help="serve /v1/embeddings instead of completions")
    parser.add_argument("--chat-template-file", type=Path, help="Jinja file to use instead of the model's own")
    return parser


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return read


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the {what}: {error}", where=str(path)) from error


def _check_port(host: str, port: int) -> None:
    """llama.cpp's own words about a taken port are easily missed."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise EngineError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            where="--port",
            fix="End the process that has the port, or give another --port.",
        ) from error


def _say(text: str) -> None:
    sys.stderr.write(f"llamacpp-server: {text}\n")
    sys.stderr.flush()


def _catch_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    sys.exit(main())
