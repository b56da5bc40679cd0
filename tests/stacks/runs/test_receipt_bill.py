"""What the cloud says that it has billed, asked of RunPod's emulator over HTTP, beside what the list price makes of it."""

from __future__ import annotations

import time
from pathlib import Path

import asyncssh
import pytest

from providers.cloud import LaunchRequest, Need
from providers.emulators.emulator import start_emulator
from providers.lease.intents import make_offer_key
from providers.open_clouds import open_clouds
from schemas.job import Candidate
from stacks.runs.receipt import make_receipt
from tests.stacks.run_files import make_folder, make_job, name_machine, note_machine, plan_for

pytestmark = [pytest.mark.wire, pytest.mark.timeout(60)]


def make_keys() -> tuple[str, str]:
    """A public client key and a private host key."""
    client, host = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    return client.export_public_key().decode().strip(), host.export_private_key().decode()


def test_the_receipt_has_what_runpod_billed_for_each_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_emulator("runpod", state_dir=tmp_path / "account", speed=1) as account:
        for name, value in account.exports.items():
            monkeypatch.setenv(name, value)
        cloud = open_clouds(["runpod"])["runpod"]
        offer = next(each for each in cloud.offers(Need(gpu="H100-SXM")) if each.available)
        public_key, host_key = make_keys()
        request = LaunchRequest(
            name=name_machine(),
            offer=offer,
            public_key=public_key,
            host_private_key=host_key,
            expires_at=int(time.time()) + 600,
        )
        created = time.time()
        id = cloud.launch(request)
        deadline = time.monotonic() + 20
        while account.machines()[0].cost_usd < 0.001:
            assert time.monotonic() < deadline, "the meter does not run"
            time.sleep(0.05)
        cloud.terminate(id)
        folder = make_folder(tmp_path)
        fields = {"cloud": "runpod", "offer": make_offer_key(offer), "price_usd_per_hour": offer.price_usd_per_hour}
        note_machine(folder, id, "created", at=created, **fields)

        receipt = make_receipt(folder, plan_for(make_job(candidates=[Candidate(cloud="runpod")]), offer), time.time())

        (machine,) = account.machines()
        (line,) = receipt.machines
        assert line.billed_usd == pytest.approx(machine.cost_usd, abs=1e-5) and machine.cost_usd >= 0.001
        assert receipt.billed_usd == pytest.approx(machine.cost_usd, abs=1e-4)
        assert receipt.usd == pytest.approx(machine.cost_usd, abs=0.002)
        assert (line.cloud, line.gpu, line.region) == ("runpod", "H100-SXM", offer.region)


def test_a_cloud_that_does_not_answer_leaves_the_bill_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    note_machine(folder, "p0", "created", "deleted", cloud="runpod")

    receipt = make_receipt(folder, plan_for(make_job()), time.time())

    assert (receipt.machines[0].billed_usd, receipt.billed_usd) == (None, None)
