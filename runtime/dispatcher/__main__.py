"""The dispatcher as a process: `python -m runtime.dispatcher [--stop] MANIFEST`, started by Dispatch.

Each destroy starts a --stop and waits for it, so that one loads nothing of what runs a batch unless it has lines to write.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from runtime.dispatcher.dispatch_lock import stop_holder
from runtime.dispatcher.manifest import Manifest, load_manifest
from schemas.errors import LeaseholdError
from schemas.status import StopReason

STOP_TIMEOUT_S = 30.0
_log = logging.getLogger("leasehold.dispatcher")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0: finished, stopped, or another dispatcher is at it already; else the error's own."""
    options = _parse_arguments(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        manifest = load_manifest(options.manifest)
        if not options.stop:
            from runtime.dispatcher.dispatcher import run_dispatcher

            return run_dispatcher(manifest)
        stop_dispatcher(manifest, reason=options.reason, timeout_s=options.timeout)
    except LeaseholdError as error:
        _log.error("%s", error)
        return 0 if options.stop else error.exit_code
    return 0


def stop_dispatcher(manifest: Manifest, *, reason: StopReason | None, timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop the live dispatcher of this folder, if there is one. With a reason the results are finished in any case."""
    folder = Path(manifest.output_dir)
    if not folder.is_dir():
        return
    outcome = stop_holder(folder, reason=reason, timeout_s=timeout_s)
    _log.info("the dispatcher is %s", outcome)
    if reason is not None:
        from runtime.dispatcher.dispatcher import run_dispatcher

        run_dispatcher(manifest, ending=reason)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.dispatcher", description="Run or stop a batch's dispatcher."
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--stop", action="store_true", help="stop the live dispatcher and wait until it is gone")
    parser.add_argument("--reason", choices=get_args(StopReason), help="with --stop: what the rest of the lines get")
    parser.add_argument("--timeout", type=float, default=STOP_TIMEOUT_S, help="with --stop: seconds until it is killed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
