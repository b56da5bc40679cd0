from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.batch.recovery import Tally, read_finished, recover_file
from runtime.batch.results import ResultWriter

writer = ResultWriter("r")
COUNT = 8
ANSWER = b'{"usage":{"prompt_tokens":2,"completion_tokens":3}}'
LINES = [writer.make_answer(n, b'"i%d"' % n, status=200, request_id="q", body=ANSWER) for n in range(COUNT)]
STOPPED = [writer.make_failure(n, b'"i%d"' % n, code="batch_cancelled", message="m") for n in range(COUNT)]
BEYOND = writer.make_failure(COUNT, b'"x"', code="c", message="m")
PIECES = st.one_of(
    st.sampled_from(LINES),
    st.sampled_from(STOPPED),
    st.binary(max_size=30),
    st.sampled_from([b"\0" * 512, b"\n", BEYOND, LINES[0][:-1], LINES[1][:20]]),
)


def recover(path: Path) -> tuple[bytearray, Tally, int]:
    done, tally = bytearray(COUNT), Tally()
    cut = recover_file(path, writer, done=done, tally=tally)
    return done, tally, cut


def test_a_whole_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"".join(LINES[:3]))

    done, tally, cut = recover(path)

    assert list(done) == [1, 1, 1, 0, 0, 0, 0, 0]
    assert (tally.completed, tally.failed, tally.tokens.input, tally.tokens.output, cut) == (3, 0, 6, 9, 0)
    assert path.read_bytes() == b"".join(LINES[:3])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(PIECES, max_size=12))
def test_after_recovery_the_file_has_whole_lines_each_once_and_a_second_one_finds_nothing(
    tmp_path: Path, pieces: list[bytes]
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"".join(pieces))
    before = path.read_bytes()

    done, tally, cut = recover(path)

    after = path.read_bytes()
    kept = after.splitlines(keepends=True)
    assert set(kept) <= set(LINES)
    assert len(kept) == len(set(kept)) == sum(done) == tally.completed
    assert cut == len(before) - len(after)
    # A line that stands whole between two line ends is never lost.
    whole = {line for line in before.split(b"\n") if line + b"\n" in LINES} if before.endswith(b"\n") else set()
    assert whole <= {line.rstrip(b"\n") for line in kept}
    assert recover(path)[2] == 0
    assert path.read_bytes() == after


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, sum(map(len, LINES))))
def test_a_cut_at_any_byte_keeps_every_whole_line_before_it(tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"".join(LINES)[:size])

    done, _, _ = recover(path)

    assert sum(done) == path.read_bytes().count(b"\n")
    assert path.read_bytes() == b"".join(LINES[: sum(done)])
    assert len(path.read_bytes()) > size - max(map(len, LINES))


def test_a_request_that_the_other_file_has_is_taken_out(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"".join(LINES[:3]))
    done = bytearray(COUNT)
    done[1] = 1

    recover_file(path, writer, done=done, tally=Tally())

    assert path.read_bytes() == LINES[0] + LINES[2]


def test_a_finished_file_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = b"".join(LINES[:2]) + STOPPED[2] + b"added by hand\n"
    path.write_bytes(data)
    done, tally = bytearray(COUNT), Tally()

    assert read_finished(path, writer, done=done, tally=tally) == "batch_cancelled"

    assert (tally.completed, tally.failed) == (2, 1)
    assert path.read_bytes() == data


def test_a_line_with_a_carriage_return_before_it_is_not_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\r" + LINES[0] + LINES[1])

    done, _, _ = recover(path)

    assert (done[0], done[1]) == (0, 1)
    assert path.read_bytes() == LINES[1]
