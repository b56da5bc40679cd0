"""Sends one request and sees it to its end: result written, put back, or given up. Called by the slots of every replica."""

from __future__ import annotations

import asyncio

from runtime.batch.batch_lines import RequestLine, read_max_tokens
from runtime.batch.input_index import BatchInput
from runtime.batch.journal import Journal
from runtime.batch.tokens import NO_TOKENS, Tokens
from runtime.dispatcher.durations import DurationCounts
from runtime.dispatcher.early_stop import EarlyStop
from runtime.dispatcher.flight import Flight, Request, make_deadline_s
from runtime.dispatcher.manifest import DispatchOptions
from runtime.dispatcher.replica import Replica
from runtime.dispatcher.request_queue import RequestQueue
from runtime.engines.exchange import Answer, TransportFailure
from runtime.engines.outcome import Outcome, classify_answer

FREE_REFUSALS = 100
POISON_DEATHS = 3


class Sending(Flight, kw_only=True):
    """A flight, with the line that it carries and the replica that it goes to."""

    line: RequestLine
    replica: Replica


class Sender:
    """`finished` is set when every line has its result; `redone` counts sendings whose work was for nothing."""

    def __init__(
        self,
        batch: BatchInput,
        journal: Journal,
        queue: RequestQueue,
        *,
        run: str,
        options: DispatchOptions,
        durations: DurationCounts,
    ) -> None:
        self.finished = asyncio.Event()
        self.early_stop = EarlyStop(has_success=journal.tally.completed > 0)
        self.redone = 0
        self.first_sent_at: float | None = None
        self._batch = batch
        self._journal = journal
        self._queue = queue
        self._run = run
        self._options = options
        self._durations = durations
        self._loop = asyncio.get_running_loop()

    async def send(self, request: Request, replica: Replica) -> None:
        """One try. Raises SpecError when the input is no longer what was checked, and nothing else."""
        line = self._batch.read(request.line)
        body = bytes(line.body)
        sending = self._depart(request, replica, line, body)
        try:
            answer = await replica.transport.post(body, request_id=f"{self._run}-{request.line:08x}-{request.sent}")
        except TransportFailure as failure:
            self._arrive(sending)
            await self._on_broken(sending, failure)
        except asyncio.CancelledError:
            self._arrive(sending)
            if sending.cause is None:
                raise
            sending.task.uncancel()
            self._on_abort(sending)
        else:
            self._arrive(sending)
            await self._on_answer(sending, answer)

    def _depart(self, request: Request, replica: Replica, line: RequestLine, body: bytes) -> Sending:
        task = asyncio.current_task()
        assert task is not None
        now = self._loop.time()
        if self.first_sent_at is None:
            self.first_sent_at = now
        request.sent += 1
        deadline_s = make_deadline_s(
            timeout_s=self._options.request_timeout_s,
            max_tokens=read_max_tokens(body),
            latency_s=replica.slow_answer_s,
            token_s=replica.slow_token_s,
        )
        sending = Sending(request, task, now, now + deadline_s, line=line, replica=replica)
        request.flights.append(sending)
        replica.flights.add(sending)
        self._queue.depart(request)
        return sending

    def _arrive(self, sending: Sending) -> None:
        sending.request.flights.remove(sending)
        sending.replica.flights.discard(sending)
        self._queue.arrive(sending.request)

    async def _on_answer(self, sending: Sending, answer: Answer) -> None:
        outcome, tokens = classify_answer(answer.status, answer.body)
        if outcome is Outcome.ANSWERED and tokens is not None:
            self._write_answer(sending, answer, tokens)
        elif outcome is Outcome.REFUSED:
            self._write_refusal(sending, answer)
        elif outcome is Outcome.BUSY:
            await self._on_busy(sending, answer)
        elif answer.status >= 500 and not await sending.replica.check_alive():
            self._on_lost(sending)
        else:
            self._count_attempt(sending, answer=answer)

    async def _on_broken(self, sending: Sending, failure: TransportFailure) -> None:
        """No whole answer: a dead engine is not the request's fault, a living one that hangs up may be."""
        if not await sending.replica.check_alive():
            self._on_lost(sending)
        else:
            self._count_attempt(sending, code="connection_error", message=failure.message)

    def _on_abort(self, sending: Sending) -> None:
        self.redone += 1
        if sending.cause in ("deadline", "stalled"):
            spent_s = self._loop.time() - sending.sent_at
            what = "no answer" if sending.cause == "deadline" else "the engine made no progress"
            self._count_attempt(sending, code="request_timeout", message=f"{what} in {spent_s:.0f} s")
        elif sending.cause == "left":
            self._put_back(sending.request)

    async def _on_busy(self, sending: Sending, answer: Answer) -> None:
        """Turned away unread: free, unless this one is turned away again and again while others are answered."""
        request, replica = sending.request, sending.replica
        replica.on_busy(sending, retry_after_s=answer.retry_after_s)
        if answer.status == 503 and not await replica.check_alive():
            self._on_lost(sending)
            return
        request.busy += 1
        others_pass = self._journal.tally.completed > request.busy_mark
        request.busy_mark = self._journal.tally.completed
        if request.busy > FREE_REFUSALS and others_pass:
            self._count_attempt(sending, answer=answer)
        else:
            request.avoid = replica
            self._put_back(request)

    def _on_lost(self, sending: Sending) -> None:
        """The replica is down: no attempt, but whoever is there at too many deaths may be what kills."""
        request = sending.request
        self.redone += 1
        request.avoid = sending.replica
        if sending.replica.has_died:
            request.deaths += 1
        if request.deaths < POISON_DEATHS:
            self._put_back(request)
        elif not request.flights:
            message = f"{request.deaths} engines died while they worked on this request, the last time on it alone"
            self._write_failure(sending, code="poisoned_request", message=message)

    def _count_attempt(
        self,
        sending: Sending,
        *,
        answer: Answer | None = None,
        code: str = "",
        message: str = "",
    ) -> None:
        request = sending.request
        request.attempts += 1
        request.avoid = sending.replica
        if request.attempts <= self._options.max_retries:
            self._put_back(request, delay_s=self._queue.retry_delay(request))
        elif request.flights:
            return
        elif answer is None:
            self._write_failure(sending, code=code, message=message)
        elif answer.status < 300:
            message = f"status {answer.status} with a body that is no JSON: {answer.body[:200]!r}"
            self._write_failure(sending, code="invalid_answer", message=message)
        else:
            self._write_refusal(sending, answer)

    def _put_back(self, request: Request, *, delay_s: float = 0.0) -> None:
        """Unless a twin is still on its way, or has brought the result."""
        if not request.flights and not self._journal.done[request.line]:
            self._queue.put_back(request, delay_s=delay_s)

    def _write_answer(self, sending: Sending, answer: Answer, tokens: Tokens) -> None:
        data = self._journal.writer.make_answer(
            sending.request.line,
            bytes(sending.line.custom_id),
            status=answer.status,
            request_id=answer.request_id,
            body=answer.body,
        )
        self.early_stop.on_answer()
        if self._write(sending, data, failed=False, tokens=tokens):
            self._durations.add(sending.replica.on_answer(sending, tokens))

    def _write_refusal(self, sending: Sending, answer: Answer) -> None:
        data = self._journal.writer.make_refusal(
            sending.request.line,
            bytes(sending.line.custom_id),
            status=answer.status,
            request_id=answer.request_id,
            body=answer.body,
        )
        self.early_stop.on_failure(answer.status, answer.body)
        if self._write(sending, data, failed=True):
            sending.replica.on_refusal(sending)

    def _write_failure(self, sending: Sending, *, code: str, message: str) -> None:
        data = self._journal.writer.make_failure(
            sending.request.line, bytes(sending.line.custom_id), code=code, message=message
        )
        self.early_stop.on_failure(0, f"{code}: {message}".encode())
        if self._write(sending, data, failed=True):
            sending.replica.failed += 1

    def _write(self, sending: Sending, data: bytes, *, failed: bool, tokens: Tokens = NO_TOKENS) -> bool:
        """Whether this is the result; the later of two twins is not, and the slower one is ended."""
        is_first = self._journal.add(sending.request.line, data, failed=failed, tokens=tokens)
        self.redone += not is_first
        for twin in sending.request.flights:
            twin.abort("twin")
        if self._journal.undone == 0:
            self.finished.set()
        return is_first
