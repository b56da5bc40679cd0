"""When a local machine must end itself, with clocks in hand."""

from __future__ import annotations

from pathlib import Path

from providers.local.dead_man import DeadMan, read_beat


def make_dead_man(*, heartbeat_timeout_s: float = 0) -> DeadMan:
    return DeadMan(expires_at=1_000, heartbeat_timeout_s=heartbeat_timeout_s, now=900, monotonic=50)


def test_it_ends_at_the_expiry_and_not_before() -> None:
    dead_man = make_dead_man()

    assert dead_man.find_reason(now=999.9, monotonic=149.9, beat_mtime_ns=None) == ""
    assert dead_man.find_reason(now=1_000, monotonic=149.9, beat_mtime_ns=None) == "its lease has expired"


def test_a_clock_set_back_does_not_prolong_its_life() -> None:
    assert make_dead_man().find_reason(now=-2_600, monotonic=150, beat_mtime_ns=None) == "its lease has expired"


def test_silence_counts_from_the_start_when_no_heartbeat_ever_came() -> None:
    dead_man = make_dead_man(heartbeat_timeout_s=10)

    assert dead_man.find_reason(now=910, monotonic=60, beat_mtime_ns=None) == ""
    assert dead_man.find_reason(now=911, monotonic=61, beat_mtime_ns=None) == "no heartbeat for 11 s"


def test_a_heartbeat_starts_the_count_again_but_an_old_one_does_not() -> None:
    dead_man = make_dead_man(heartbeat_timeout_s=10)

    assert dead_man.find_reason(now=909, monotonic=59, beat_mtime_ns=1) == ""
    assert dead_man.find_reason(now=918, monotonic=68, beat_mtime_ns=1) == ""
    assert dead_man.find_reason(now=919, monotonic=69.5, beat_mtime_ns=1) == "no heartbeat for 10 s"
    assert dead_man.find_reason(now=919, monotonic=69.5, beat_mtime_ns=2) == ""


def test_a_clock_set_forward_is_no_silence() -> None:
    dead_man = make_dead_man(heartbeat_timeout_s=10)

    assert dead_man.find_reason(now=990, monotonic=55, beat_mtime_ns=None) == ""


def test_without_a_timeout_silence_is_allowed() -> None:
    assert make_dead_man().find_reason(now=999, monotonic=149, beat_mtime_ns=None) == ""


def test_a_heartbeat_is_the_time_of_a_file(tmp_path: Path) -> None:
    assert read_beat(tmp_path) is None
    (tmp_path / ".leasehold").mkdir()
    (tmp_path / ".leasehold" / "heartbeat").touch()

    assert read_beat(tmp_path) == (tmp_path / ".leasehold" / "heartbeat").stat().st_mtime_ns
