"""What `dispatch` does: sends a batch file to servers that run already, with the same dispatcher as a run has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from runtime.batch_input import check_input
from runtime.manifest import DispatchOptions, Manifest
from schemas.errors import LeaseholdError, SpecError
from schemas.files import replace_file
from schemas.status import Progress
from stacks.console import WORDS
from stacks.outcome import judge_progress


def dispatch_to_servers(
    input_file: Path,
    output: Path,
    base_urls: Sequence[str],
    *,
    max_concurrency: int,
    endpoint: str,
    key_file: str,
) -> int:
    """Check the input, run the dispatcher in the foreground, say how it ended; started again it resumes."""
    if not base_urls:
        raise SpecError("dispatch needs at least one --base-url", fix="--base-url http://127.0.0.1:8000")
    report = check_input(input_file, endpoint=endpoint, model="")
    report.raise_if_bad()
    output.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(
        run=f"dispatch-{output.name}"[:40],
        input=str(input_file.absolute()),
        output_dir=str(output.absolute()),
        endpoint=endpoint,
        model=report.model,
        replicas=len(base_urls),
        options=DispatchOptions(max_concurrency=max_concurrency),
        engine_key_file=key_file,
        base_urls=tuple(base_urls),
    )
    path = output / "manifest.json"
    replace_file(path, msgspec.json.encode(manifest))
    code = subprocess.call([sys.executable, "-m", "runtime.dispatcher", str(path.absolute())])
    return _tell_end(output, code)


def _tell_end(output: Path, code: int) -> int:
    try:
        progress = msgspec.json.decode((output / "progress.json").read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError) as error:
        raise LeaseholdError(f"the dispatcher ended with exit code {code}", where=str(output)) from error
    outcome = judge_progress(progress)
    if outcome is None:
        WORDS.print(f"stopped before the end; the same command goes on ({output})")
        return code or 130
    WORDS.print(f"{outcome.message}; results in {output}")
    return outcome.exit_code
