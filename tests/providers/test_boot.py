"""From an id to SSH: each phase has its deadline, another host key is refused, and a failure ends with the boot log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from providers.boot import BootLimits, wait_until_ssh_answers
from providers.cloud import Endpoint, MachineState
from providers.lease.intents import append_intent, find_history, load_intents
from providers.lease.lease import open_lease, revoke_lease
from providers.ssh_probe import ProbeResult
from schemas.errors import CancelledError, CloudError, MachineFailed
from schemas.ssh import SshTarget
from tests.providers.scripted_cloud import PREFIX, START, TOKEN, FakeClock, ScriptedCloud, make_intent

NAME = f"{PREFIX}0x1-t0rx80"
ADDRESS = Endpoint(host="192.0.2.7", port=40022, user="root")
ANSWERS, CLOSED = ProbeResult(outcome="answers"), ProbeResult(outcome="closed", detail="connection refused")
WRONG = ProbeResult(outcome="wrong_key", detail="Host key verification failed.")


class BootingCloud(ScriptedCloud):
    """A cloud whose one machine has its address after address_s seconds."""

    address_s = 0.0
    detail = ""
    log = ""

    def find(self, name_or_id: str) -> MachineState | None:
        state = super().find(name_or_id)
        if state is None:
            return None
        has_address = self.clock.time >= START + self.address_s
        return MachineState(
            cloud=self.name,
            id=state.id,
            name=state.name,
            phase=state.phase,
            endpoint=ADDRESS if has_address else None,
            detail=self.detail,
        )

    def logs(self, id: str) -> str:
        self._ask("logs", id)
        return self.log


class Probe:
    """Gives these results one after the other; the last one stays."""

    def __init__(self, *results: ProbeResult) -> None:
        self.results = list(results)
        self.targets: list[SshTarget] = []

    def __call__(self, target: SshTarget) -> ProbeResult:
        self.targets.append(target)
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


class Boot:
    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.clock = FakeClock()
        self.cloud = BootingCloud("a", self.clock)
        self.cloud.add_foreign(NAME, phase="starting")
        self.events: list[str] = []
        (run_dir / "hostkeys").mkdir()
        open_lease(run_dir, run="t", expires_at=int(START) + 9999, clouds=["a"], now=START, make_token=lambda: TOKEN)
        append_intent(run_dir, make_intent(NAME))
        append_intent(run_dir, make_intent(NAME, kind="answer", outcome="created", id="a-0"))

    def wait(self, *results: ProbeResult, total_s: float = 900, probe: Callable[..., Any] | None = None) -> Endpoint:
        return wait_until_ssh_answers(
            self.run_dir,
            cloud=self.cloud,
            machine_id="a-0",
            alias=NAME,
            host_key="ssh-ed25519 AAAA",
            index=3,
            limits=BootLimits(total_s=total_s),
            clock=self.clock,
            on_event=lambda event, _message, _data: self.events.append(event),
            probe=probe or Probe(*(results or (ANSWERS,))),
        )

    def fail(self, *results: ProbeResult, total_s: float = 900) -> MachineFailed:
        with pytest.raises(MachineFailed) as caught:
            self.wait(*results, total_s=total_s)
        return caught.value

    @property
    def waited_s(self) -> float:
        return self.clock.time - START


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    return Boot(tmp_path)


def test_a_machine_that_answers_is_told_with_its_address(boot: Boot) -> None:
    assert boot.wait() == ADDRESS
    assert boot.events == ["ssh_answers"]


def test_the_probe_is_sent_to_the_address_with_our_key_pinned(boot: Boot) -> None:
    probe = Probe(ANSWERS)
    boot.wait(probe=probe)

    target = probe.targets[0]
    assert (target.host, target.port, target.user, target.alias) == ("192.0.2.7", 40022, "root", NAME)
    assert Path(target.known_hosts_file).read_text() == f"{NAME} ssh-ed25519 AAAA\n"
    assert target.key_file == str(boot.run_dir / "id_ed25519")


def test_a_machine_that_is_shown_late_is_waited_for(boot: Boot) -> None:
    boot.cloud.machines[0].visible_at = START + 200

    assert boot.wait() == ADDRESS
    assert 200 <= boot.waited_s < 210


def test_a_machine_that_is_never_shown_fails_long_before_the_boot_deadline(boot: Boot) -> None:
    boot.cloud.machines[0].visible_at = START + 1e6

    assert "did not show it for 300 s" in boot.fail(total_s=3600).what
    assert 300 < boot.waited_s < 310


def test_an_address_may_come_late(boot: Boot) -> None:
    boot.cloud.address_s = 400

    assert boot.wait() == ADDRESS
    assert 400 <= boot.waited_s < 410


def test_the_deadline_says_what_was_still_missing(boot: Boot) -> None:
    boot.cloud.address_s, boot.cloud.detail = 1e6, "pulling the image"
    error = boot.fail(total_s=600)

    assert "not ready after 10 minutes: still waiting for an address (pulling the image)" in error.what
    assert "limits.boot_minutes" in error.fix
    assert 600 < boot.waited_s < 610


def test_a_server_that_does_not_answer_is_named_with_its_reason(boot: Boot) -> None:
    assert "SSH at 192.0.2.7:40022 (connection refused)" in boot.fail(CLOSED, total_s=60).what


def test_a_cloud_that_is_down_is_waited_for_and_named_at_the_deadline(boot: Boot) -> None:
    boot.cloud.down_until = START + 100
    assert boot.wait() == ADDRESS
    assert boot.events == ["cloud_silent", "ssh_answers"]

    boot.cloud.down_until = boot.clock.time + 1e6
    assert "the cloud to answer (the cloud answered 503)" in boot.fail(total_s=60).what


def test_another_host_key_three_times_in_a_row_is_refused(boot: Boot) -> None:
    error = boot.fail(WRONG)

    assert "another host key" in error.what
    assert error.where == "192.0.2.7:40022"
    assert "Nothing was sent to it" in error.fix
    assert boot.waited_s < 5


def test_another_host_key_now_and_then_is_a_machine_still_booting(boot: Boot) -> None:
    assert boot.wait(WRONG, WRONG, CLOSED, WRONG, WRONG, ANSWERS) == ADDRESS


@pytest.mark.parametrize(("phase", "words"), [("failed", "has failed: out of disk"), ("ending", "is ending")])
def test_a_machine_that_will_never_answer_fails_at_once(boot: Boot, phase: str, words: str) -> None:
    boot.cloud.machines[0].phase, boot.cloud.detail = phase, "out of disk"

    assert words in boot.fail().what
    assert boot.waited_s < 1


def test_a_machine_that_disappears_fails_at_once(boot: Boot) -> None:
    boot.clock.at(30, lambda: setattr(boot.cloud.machines[0], "gone_at", boot.clock.time))

    assert "disappeared" in boot.fail(CLOSED).what
    assert boot.waited_s < 40


def test_a_revoked_lease_ends_the_wait(boot: Boot) -> None:
    boot.clock.at(20, lambda: revoke_lease(boot.run_dir, clock=boot.clock, timeout_s=5) and None)

    with pytest.raises(CancelledError, match="revoked while the machine booted"):
        boot.wait(CLOSED)
    assert boot.waited_s < 30


def test_a_failure_ends_with_the_end_of_the_boot_log_and_keeps_all_of_it(boot: Boot) -> None:
    boot.cloud.log = "\n".join(f"line {number}" for number in range(50))

    error = boot.fail(CLOSED, total_s=10)

    assert error.what.endswith("line 49")
    assert "line 30\n" in error.what and "line 29\n" not in error.what
    assert (boot.run_dir / "boot-3.log").read_text() == boot.cloud.log


def test_a_boot_log_that_cannot_be_read_hides_no_reason(boot: Boot) -> None:
    class Mute(BootingCloud):
        def logs(self, id: str) -> str:
            raise CloudError("the cloud answered 500")

    boot.cloud.__class__ = Mute

    error = boot.fail(CLOSED, total_s=10)

    assert "not ready after" in error.what and "could not be read: the cloud answered 500" in error.what


def test_the_first_sighting_is_written_down_once(boot: Boot) -> None:
    boot.wait(CLOSED, CLOSED, ANSWERS)

    history = find_history(boot.run_dir, NAME)
    assert history is not None and history.seen_ids == ("a-0",)
    outcomes: Sequence[str] = [intent.outcome for intent in load_intents(boot.run_dir).intents]
    assert outcomes.count("seen") == 1
