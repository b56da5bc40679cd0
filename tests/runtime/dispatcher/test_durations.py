from __future__ import annotations

from runtime.dispatcher.durations import DurationCounts
from schemas.durations import Durations, find_end_s, find_step


def test_every_duration_is_counted_in_its_step() -> None:
    counts = DurationCounts()
    for duration_s in (0.2, 0.2, 3.0):
        counts.add(duration_s)

    record = counts.make_record()

    assert record == Durations(answers=3, longest_s=3.0, steps=((find_step(0.2), 2), (find_step(3.0), 1)))
    assert find_end_s(record.steps[0][0]) >= 0.2


def test_a_later_dispatcher_adds_to_what_was_told_and_tells_only_its_own_as_news() -> None:
    counts = DurationCounts()
    counts.continue_from(Durations(answers=2, longest_s=9.0, steps=((100, 2),)))
    counts.add(find_end_s(100) * 0.999)

    assert counts.take_news() == ((100, 1),)
    assert counts.take_news() == ()
    assert counts.make_record() == Durations(answers=3, longest_s=9.0, steps=((100, 3),))


def test_steps_that_no_dispatcher_of_ours_would_write_break_nothing() -> None:
    counts = DurationCounts()

    counts.continue_from(Durations(answers=2, steps=((-5, 1), (10**6, 1))))

    assert counts.make_record().answers == 2
