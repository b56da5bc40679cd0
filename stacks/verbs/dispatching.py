"""What `dispatch` does: sends a batch file to servers that run already, with the same dispatcher as a run has."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from runtime.batch.batch_input import check_input
from runtime.dispatcher.manifest import DispatchOptions, Manifest
from schemas.errors import CredentialError, Interrupted, LeaseholdError, SpecError
from schemas.files import replace_file
from schemas.status import Progress
from stacks.runs.outcome import judge_progress
from stacks.terminal.console import WORDS
from stacks.verbs.dispatch_watch import run_watched


def dispatch_to_servers(
    input_file: Path,
    output: Path,
    base_urls: Sequence[str],
    *,
    max_concurrency: int,
    endpoint: str,
    key_file: str,
    key_env: str = "",
    ordered: bool = False,
) -> int:
    """Check the input, run the dispatcher in the foreground, say how it ended; started again it resumes."""
    _refuse_bad_urls(base_urls)
    report = check_input(input_file, endpoint=endpoint, model="")
    report.raise_if_bad()
    _refuse_bad_key(key_file, key_env)
    _make_folder(output)
    manifest = Manifest(
        run=f"dispatch-{output.name}"[:40],
        input=str(input_file.absolute()),
        output_dir=str(output.absolute()),
        endpoint=endpoint,
        model=report.model,
        replicas=len(base_urls),
        options=DispatchOptions(max_concurrency=max_concurrency, ordered=ordered),
        engine_key_file=key_file,
        engine_key_env=key_env,
        base_urls=tuple(base_urls),
    )
    path = output / "manifest.json"
    replace_file(path, msgspec.json.encode(manifest))
    WORDS.print(
        f"{report.lines:,} requests to {', '.join(base_urls)}; a server that does not answer yet is waited for, Ctrl-C"
        " stops it, and the same command goes on",
        style="dim",
    )
    return _tell_end(output, _run_dispatcher(path, output))


def _run_dispatcher(manifest: Path, output: Path) -> int:
    try:
        command = [sys.executable, "-P", "-m", "runtime.dispatcher", str(manifest.absolute())]
        return run_watched(command, output, WORDS)
    except KeyboardInterrupt:
        fix = "The same command goes on where it stopped."
        raise Interrupted("stopped; what is answered is kept", where=str(output), fix=fix) from None


def _refuse_bad_urls(base_urls: Sequence[str]) -> None:
    fix = "--base-url http://127.0.0.1:8000"
    if not base_urls:
        raise SpecError("dispatch needs at least one --base-url", fix=fix)
    for url in base_urls:
        if not url.startswith(("http://", "https://")):
            raise SpecError(f"{url!r} is no address of a server", where="--base-url", fix=fix)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "Name a folder that can be written."
        raise SpecError(f"cannot make the folder: {error.strerror}", where=str(output), fix=fix) from error


def _refuse_bad_key(key_file: str, key_env: str) -> None:
    if key_file and key_env:
        raise SpecError("--key-file and --key-env exclude each other", fix="Leave one of them out.")
    if key_file and not Path(key_file).is_file():
        raise SpecError("there is no such key file", where=key_file, fix="Write the servers' API key into it.")
    if key_env and not os.environ.get(key_env):
        raise CredentialError(f"{key_env} is not set", fix=f"export {key_env}=<the servers' API key>")


def _tell_end(output: Path, code: int) -> int:
    try:
        progress = msgspec.json.decode((output / "progress.json").read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LeaseholdError(f"the dispatcher ended with exit code {code}", where=str(output)) from error
    if code == SpecError.exit_code:
        return code
    outcome = judge_progress(progress)
    if code and (outcome is None or outcome.exit_code == 0):
        raise LeaseholdError(f"the dispatcher ended with exit code {code}", where=str(output))
    if outcome is None:
        WORDS.print(f"stopped before the end; the same command goes on ({output})")
        return code or 130
    WORDS.print(f"{outcome.message}; results in {output}")
    return outcome.exit_code
