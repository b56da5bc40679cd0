"""The dispatcher: runs a batch on whatever machines join. Called by its process, and by a --stop that has lines to write.

    hold the lock -> check the input -> recover what is done -> send the rest, until done or stopped -> put the results in place

Everything it knows is in files, so it may be killed at any moment and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import get_args

from runtime.batch.input_index import BatchInput, open_input
from runtime.batch.journal import OUTPUT, Journal
from runtime.batch.results import ResultWriter
from runtime.dispatcher.budget_watch import stop_at_budget
from runtime.dispatcher.delivery import Delivery, raise_if_unwritten
from runtime.dispatcher.dispatch_lock import Holder, hold_dispatch_lock, read_stop_reason
from runtime.dispatcher.manifest import Manifest
from runtime.dispatcher.progress import DispatchState, Reporter, read_progress
from runtime.dispatcher.stop_signal import StopSignal
from runtime.objects.object_settings import load_object_settings, parse_address
from runtime.objects.object_store import ObjectStore
from runtime.objects.output_prefix import OutputPrefix
from runtime.objects.sealing import PATIENCE, Sealer, forget_sealed
from schemas.errors import LeaseholdError
from schemas.status import StopReason

_YIELD_EVERY = 2000
_UNRUN = {
    "batch_cancelled": "the batch was cancelled before this request was answered",
    "batch_expired": "the batch's time was up before this request was answered",
    "budget_exceeded": "the batch's money was used up before this request was answered",
}
_log = logging.getLogger("leasehold.dispatcher")


def run_dispatcher(manifest: Manifest, *, ending: StopReason | None = None) -> int:
    """Do the batch. With `ending`: send nothing more, only write what is left with this reason and finish the files."""
    folder = Path(manifest.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with hold_dispatch_lock(folder) as holder:
        if holder is None:
            _log.info("another dispatcher is at work in %s already: nothing to do", folder)
            return 0
        reporter = Reporter(folder)
        reporter.continue_from(read_progress(folder), is_finished=(folder / OUTPUT).exists())
        if ending and reporter.keeps_old:
            return 0
        reporter.message = "checking the input"
        reporter.write()
        try:
            code = _report_errors(reporter, lambda: _check_and_dispatch(manifest, holder, reporter, ending))
        finally:
            # However it ended: a stop without a reason is part of a destroy whose life cycle may die in the middle of it.
            if ending is None:
                _start_on_end(manifest)
        return code


def _start_on_end(manifest: Manifest) -> None:
    """Start what the manifest names for the end of the batch, in a session of its own: it outlives this process."""
    if not manifest.on_end:
        return
    try:
        with (Path(manifest.output_dir) / "on_end.log").open("ab") as log:
            subprocess.Popen(
                manifest.on_end, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        _log.error("cannot start %s: %s", manifest.on_end[0], error)


def _check_and_dispatch(manifest: Manifest, holder: Holder, reporter: Reporter, ending: StopReason | None) -> int:
    batch = open_input(
        Path(manifest.input),
        Path(manifest.output_dir) / "input.index",
        endpoint=manifest.endpoint,
        model=manifest.model,
        line_limit=manifest.options.line_limit,
    )
    reporter.message = ""
    _raise_file_limit()
    gc.set_threshold(50_000, 20, 100)
    with contextlib.closing(batch), asyncio.Runner(loop_factory=_choose_loop()) as runner:
        return runner.run(_dispatch(manifest, holder, batch, reporter, ending))


async def _dispatch(
    manifest: Manifest, holder: Holder, batch: BatchInput, reporter: Reporter, ending: StopReason | None
) -> int:
    folder = Path(manifest.output_dir)
    stop = StopSignal(ending)
    stop.listen(lambda: read_stop_reason(folder, holder))
    journal = Journal(folder, ResultWriter(manifest.run), lines=batch.lines, before_cut=lambda: forget_sealed(folder))
    journal.recover()
    reporter.watch(journal)
    if journal.is_finished:
        return _report_finished(journal, reporter)
    _log.info("%d of %d requests are to be done", journal.undone, journal.lines)
    try:
        async with _seal(manifest, journal, stop):
            if journal.undone and not stop.asked.is_set():
                async with stop_at_budget(manifest.budget_file, stop):
                    await Delivery(manifest, batch, journal, reporter, stop).run()
            was_stopped = journal.undone > 0
            if was_stopped and stop.reason:
                await _write_unrun(batch, journal, stop.reason)
        if journal.undone == 0:
            await journal.finish(ordered=manifest.options.ordered)
    finally:
        await journal.close()
    raise_if_unwritten(journal)
    _report_end(reporter, "stopped" if was_stopped else "finished", stop.reason if was_stopped else None)
    return 0


@contextlib.asynccontextmanager
async def _seal(manifest: Manifest, journal: Journal, stop: StopSignal) -> AsyncIterator[None]:
    """Seal results in S3 meanwhile, to the last one; raises OwnerLost when another run took the prefix before the end."""
    if not manifest.seal:
        yield
        return
    sealer = Sealer(Path(manifest.output_dir), journal, _open_prefix, on_lost=lambda: stop.ask(None))
    working = asyncio.get_running_loop().create_task(sealer.run())
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait([working])
        await journal.close()
        await sealer.finish()
    if sealer.lost is not None and journal.undone:
        raise sealer.lost


def _open_prefix(address: str) -> OutputPrefix:
    return OutputPrefix(ObjectStore(parse_address(address), load_object_settings(os.environ), PATIENCE))


async def _write_unrun(batch: BatchInput, journal: Journal, reason: StopReason) -> None:
    """An error line for each request that has no result."""
    line = journal.done.find(0)
    while line >= 0:
        custom_id = bytes(batch.read(line).custom_id)
        data = journal.writer.make_failure(line, custom_id, code=reason, message=_UNRUN[reason])
        journal.add(line, data, failed=True)
        if line % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
            raise_if_unwritten(journal)
        line = journal.done.find(0, line + 1)


def _report_finished(journal: Journal, reporter: Reporter) -> int:
    """An earlier dispatcher got to the end, though perhaps not as far as saying so."""
    _log.info("all %d requests have their results already: nothing to do", journal.lines)
    reason = next((code for code in get_args(StopReason) if code == journal.stop_code), None)
    _report_end(reporter, "stopped" if reason else "finished", reason)
    return 0


def _report_end(reporter: Reporter, state: DispatchState, reason: StopReason | None = None, message: str = "") -> None:
    reporter.state, reporter.stop_reason, reporter.message = state, reason, message
    reporter.ended_at = time.time()
    reporter.write_stats()
    reporter.write()
    _log.info("%s %s", state, reason or message)


def _report_errors(reporter: Reporter, work: Callable[[], int]) -> int:
    """Run it; what it cannot go on from ends as state `failed` with the message, and as the exit code."""
    try:
        return work()
    except LeaseholdError as error:
        _report_end(reporter, "failed", message=str(error))
        return error.exit_code
    except OSError as error:
        _report_end(reporter, "failed", message=f"{error.filename or 'a file'}: {error.strerror or error}")
        return LeaseholdError.exit_code
    except Exception as error:
        _report_end(reporter, "failed", message=f"unexpected, a fault of the dispatcher itself: {error!r}")
        raise


def _raise_file_limit() -> None:
    """Each request in flight is a connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, 65_536, 10_240):  # macOS calls the hard limit infinite and then refuses it
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _choose_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
