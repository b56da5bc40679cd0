"""What a fault of a cloud must lead to, from the first create to the proof that nothing is left: one story a knob, told with
our own acquisition, boot and release against an emulator. Used by the tests of every fault knob."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from providers.boot import BootLimits, wait_until_ssh_answers
from providers.clock import DEFAULT_WAITS, ignore_event
from providers.cloud import Endpoint, LaunchRequest, Need, Offer
from providers.lease.acquisition import acquire_machine
from providers.lease.intents import make_offer_key
from providers.lease.lease import open_lease
from providers.lease.settling import AcquiredMachine
from providers.lease.sweep import release_lease
from providers.lease.termination import give_back
from providers.ssh_probe import ProbeResult, probe_ssh
from schemas.errors import LeaseholdError, MachineFailed
from schemas.names import make_prefix
from schemas.ssh import SshTarget, make_ssh_arguments
from schemas.template import load_template
from stacks.launch.engine_script import ENGINE_EXITED, GPU_CHECK_FAILED, render_engine_start
from stacks.launch.launch import make_engine_launch
from stacks.planning.planning import pick_ports
from tests.providers.cloud_bench import Bench, FastClock, open_bench
from tests.providers.fake_api import HOST_KEYS, KEYS, TOKEN

TEMPLATE = Path(__file__).parents[2] / "jobs" / "templates" / "qwen2-5-7b.yaml"
SPEED = 400.0
SLOW = 30.0
SETTLE_S = 90.0
BOOT_S = 400.0
RELEASE_S = 300.0
LIFETIME_S = 86_400
# In our seconds: what our waits allow, and for each call what this computer may add.
LONGEST = {
    "acquire": 2 * (2 * (DEFAULT_WAITS.request_timeout_s + SETTLE_S) + DEFAULT_WAITS.give_up_s) + 60,
    "boot": BOOT_S + 60,
    "release": DEFAULT_WAITS.request_timeout_s + SETTLE_S + RELEASE_S + 60,
}
PLACES = {"runpod": ("US-KS-2", "US-TX-3"), "lambda": ("us-west-3", "us-east-1")}
_WORD_OF_EXIT = {0: "engine up", GPU_CHECK_FAILED: "gpu refused", ENGINE_EXITED: "engine ended"}


class Turn(msgspec.Struct, frozen=True):
    """One turn of a knob, as Emulator.set_fault takes it."""

    name: str
    value: Any = True
    count: int | None = None
    match: str = ""


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """The knobs that are turned and what comes of it.

    shows: in order "made", "made elsewhere" (by the second offer) or "adopted"; "ready" or "lost" (the machine is given back
    and the offer left out); with engine=True "engine up", "gpu refused" or "engine ended"; "released"; or an error's class
    with its exit code. A release that fails is repeated once the faults are cleared.
    machines: how many were ever made; creates: how many were ordered, if that is another number. status: an HTTP answer
    that must have been seen. boot_s, release_s: what it takes at the least, in the cloud's seconds; boot_within_s: at the
    most, in ours. real: with real machines and real SSH, on a slower clock; slow: on that clock, since fractions of a
    second count. dies_after_s: real seconds until the dead-man of a machine acts. plans_before: whether the offers were
    read before the fault was there. boots: False releases at once. check: what else must be so, after the release.
    """

    turns: tuple[Turn, ...]
    shows: tuple[str, ...] = ("made", "ready", "released")
    machines: int = 1
    creates: int | None = None
    status: int = 0
    boot_s: float = 0.0
    boot_within_s: float = LONGEST["boot"]
    release_s: float = 0.0
    real: bool = False
    slow: bool = False
    engine: bool = False
    boots: bool = True
    plans_before: bool = True
    places: tuple[str, ...] = ()
    image: str = ""
    dies_after_s: float = 0.0
    environ: dict[str, str] = {}
    settings: dict[str, str] = {}
    prepare: Callable[[Bench], None] | None = None
    change_offers: Callable[[list[Offer]], list[Offer]] | None = None
    during: Callable[[Bench, Path], None] | None = None
    check: Callable[[Bench, Path], None] | None = None


def tell(cloud: str, story: Story, folder: Path) -> None:
    """Let the story happen and assert that it went as it says, in time, and left nothing behind."""
    clock = FastClock(SLOW if story.real or story.slow else SPEED)
    with open_bench(cloud, folder, clock=clock, speed=clock.speed, real_machines=story.real, foreign=2) as bench:
        if cloud == "lambda":
            bench.emulator.set_fault("launch_interval_s", 0)
            bench.emulator.set_fault("active_after_s", 60)
        elif story.real:
            bench.emulator.set_fault("ssh_after_s", 30)
        bench.cloud = bench.make_cloud(**{"LEASEHOLD_REQUEST_TIMEOUT_S": "5"} | story.environ)
        if story.prepare is not None:
            story.prepare(bench)
        tenant = Tenant(bench, story, folder / "run")
        offers = tenant.find_offers() if story.plans_before else []
        for turn in story.turns:
            bench.emulator.set_fault(turn.name, turn.value, count=turn.count, match=turn.match)
        tenant.live(offers or tenant.find_offers())
        tenant.judge()
        if story.check is not None:
            story.check(bench, tenant.run_dir)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """How long a step took by our clock, which deadlines count, and by the cloud's, on which its machines live."""

    step: str
    ours_s: float
    clouds_s: float


class Tenant:
    """Who rents one machine under a lease, as the resources of a run do; said: what came of each step."""

    def __init__(self, bench: Bench, story: Story, run_dir: Path) -> None:
        self.bench = bench
        self.story = story
        self.run_dir = run_dir
        self.said: list[str] = []
        self.took: list[Step] = []
        run_dir.mkdir()
        (run_dir / "hostkeys").mkdir()
        key_file = run_dir / "id_ed25519"
        key_file.touch(mode=0o600)
        key_file.write_text(KEYS.private)

    def find_offers(self) -> list[Offer]:
        """The same GPU at two places, in this order."""
        places = self.story.places or PLACES[self.bench.name]
        found = list(self.bench.cloud.offers(Need(gpu="H100-SXM", regions=places)))
        ordered = sorted(found, key=lambda offer: places.index(offer.region))
        return self.story.change_offers(ordered) if self.story.change_offers is not None else ordered

    def live(self, offers: Sequence[Offer]) -> None:
        now = self.bench.clock.now()
        open_lease(
            self.run_dir,
            run="story",
            expires_at=int(now + LIFETIME_S),
            clouds=(self.bench.name,),
            now=now,
            make_token=lambda: TOKEN,
        )
        try:
            self._rent(offers)
        except LeaseholdError as error:
            self._say(error)
        if self.story.during is not None:
            self.story.during(self.bench, self.run_dir)
        try:
            self._release()
        except LeaseholdError as error:
            self._say(error)
            self.bench.emulator.clear_faults()
            self._release()

    def judge(self) -> None:
        """Everything that a story says, and that nothing is left of it."""
        emulator, story = self.bench.emulator, self.story
        assert tuple(self.said) == story.shows
        assert emulator.live_machines() == []
        assert len(emulator.machines()) == story.machines
        history = emulator.history()
        creates = [each for each in history if each.method == "POST" and each.path.endswith(("/pods", "/launch"))]
        assert len(creates) == (story.machines if story.creates is None else story.creates)
        assert story.status in (0, *(each.status for each in history))
        assert not any(each.was_touched or each.is_gone for each in emulator.machines(foreign=True))
        assert [each for each in history if each.broken] == []
        assert self.bench.name != "lambda" or self.bench.cloud.list_keys("lh-") == []
        for each in self.took:
            assert each.ours_s <= LONGEST[each.step], each
        boots = [each for each in self.took if each.step == "boot"]
        assert max((each.clouds_s for each in boots), default=0.0) >= story.boot_s
        assert max((each.ours_s for each in boots), default=0.0) <= story.boot_within_s
        assert max(each.clouds_s for each in self.took if each.step == "release") >= story.release_s

    def _rent(self, offers: Sequence[Offer]) -> None:
        """Up to two machines, one after the other: a machine that is no good is given back and its offer left out."""
        left_out: list[str] = []
        for attempt in range(2):
            machine = self._acquire(offers, attempt, left_out)
            self.said.append(self._name_machine(machine, offers))
            if not self.story.boots:
                return
            try:
                endpoint = self._timed("boot", lambda machine=machine: self._boot(machine))  # type: ignore[misc]
                self.said.append("ready")
                if not self.story.engine or self._start_engine(machine, endpoint):
                    return
            except MachineFailed:
                self.said.append("lost")
            self._give_back(machine)
            left_out.append(make_offer_key(machine.offer))

    def _acquire(self, offers: Sequence[Offer], attempt: int, left_out: Sequence[str]) -> AcquiredMachine:
        return self._timed(
            "acquire",
            lambda: acquire_machine(
                self.run_dir,
                index=0,
                attempt=attempt,
                offers=offers,
                left_out=left_out,
                make_request=self._make_request,
                clouds={self.bench.name: self.bench.cloud},
                clock=self.bench.clock,
                settle_s=SETTLE_S,
                on_event=ignore_event,
            ),
        )

    def _make_request(self, name: str, offer: Offer) -> LaunchRequest:
        dies_after_s = self.story.dies_after_s
        return LaunchRequest(
            name=name,
            offer=offer,
            public_key=KEYS.public,
            host_private_key=HOST_KEYS.private,
            expires_at=int(time.time() + dies_after_s if dies_after_s else self.bench.clock.now() + LIFETIME_S),
            image=self.story.image,
            settings=self.story.settings,
        )

    def _name_machine(self, machine: AcquiredMachine, offers: Sequence[Offer]) -> str:
        if machine.adopted:
            return "adopted"
        return "made" if machine.offer == offers[0] else "made elsewhere"

    def _boot(self, machine: AcquiredMachine) -> Endpoint:
        return wait_until_ssh_answers(
            self.run_dir,
            cloud=self.bench.cloud,
            machine_id=machine.id,
            alias=machine.name,
            host_key=HOST_KEYS.public,
            index=0,
            limits=BootLimits(total_s=BOOT_S),
            clock=self.bench.clock,
            on_event=ignore_event,
            probe=probe_ssh if self.story.real else self._probe,
        )

    def _probe(self, target: SshTarget) -> ProbeResult:
        """Without real machines: SSH answers on the port of one that is up."""
        ports = [each.ssh_port for each in self.bench.emulator.live_machines() if each.status in ("RUNNING", "active")]
        return ProbeResult(outcome="answers" if target.port in ports else "closed")

    def _start_engine(self, machine: AcquiredMachine, endpoint: Endpoint) -> bool:
        """What the Engine resource runs over SSH: the check of the GPUs, then the engine."""
        launch = make_engine_launch(load_template(TEMPLATE), machine.offer, port=pick_ports(1)[0])
        target = SshTarget(
            **msgspec.structs.asdict(endpoint),
            key_file=str(self.run_dir / "id_ed25519"),
            known_hosts_file=str(self.run_dir / "hostkeys" / f"{machine.name}.known_hosts"),
            alias=machine.name,
        )
        done = subprocess.run(
            [*make_ssh_arguments(target), render_engine_start(launch)],
            input="an-engine-key\n\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.said.append(_WORD_OF_EXIT.get(done.returncode, f"exit {done.returncode}: {done.stderr}"))
        return done.returncode == 0

    def _give_back(self, machine: AcquiredMachine) -> None:
        give_back(
            self.run_dir,
            cloud=self.bench.cloud,
            cloud_name=self.bench.name,
            id=machine.id,
            name=machine.name,
            price_usd_per_hour=machine.price_usd_per_hour,
            clock=self.bench.clock,
        )

    def _release(self) -> None:
        proof = self._timed(
            "release",
            lambda: release_lease(
                self.run_dir,
                run="story",
                token=None,
                clouds={self.bench.name: self.bench.cloud},
                clock=self.bench.clock,
                settle_s=SETTLE_S,
                deadline_s=RELEASE_S,
                on_event=ignore_event,
            ),
        )
        assert (proof.prefix, proof.skipped) == (make_prefix(TOKEN), ())
        self.said.append("released")

    def _say(self, error: LeaseholdError) -> None:
        self.said.append(f"{type(error).__name__} {error.exit_code}")

    def _timed(self, step: str, action: Callable[[], Any]) -> Any:
        ours, clouds = self.bench.clock.monotonic(), self.bench.emulator.now()
        try:
            return action()
        finally:
            ours_s, clouds_s = self.bench.clock.monotonic() - ours, self.bench.emulator.now() - clouds
            self.took.append(Step(step=step, ours_s=ours_s, clouds_s=clouds_s))
