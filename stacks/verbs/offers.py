"""What `offers` does: what each cloud would rent now, with prices, for a job or for a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from providers.cloud import Need, Offer
from providers.open_clouds import open_clouds
from providers.registry import CLOUDS
from schemas.errors import CloudError, CredentialError, LeaseholdError, NoCapacity, SpecError
from schemas.job import load_job
from stacks.planning.planning import gather_offers
from stacks.terminal.console import WORDS, make_table, print_data, print_table


def report_offers(*, job: str, gpu: str, count: int, cloud: str, as_json: bool) -> int:
    """Print offers, cheapest first; exit code 11 when there are none, or the last cloud's own when none answered."""
    if cloud and cloud not in CLOUDS:
        raise SpecError(f"there is no cloud {cloud!r}", where="--cloud", fix=f"One of: {', '.join(CLOUDS)}.")
    found = _for_job(Path(job)) if job else _for_need(Need(gpu=gpu, count=count), _choose_names(cloud, gpu))
    chosen = sorted(
        (offer for offer in found if not cloud or offer.cloud == cloud),
        key=lambda offer: (not offer.available, offer.price_usd_per_hour),
    )
    if as_json:
        print_data(chosen)
    else:
        _print_offers(chosen)
    return 0 if any(offer.available for offer in chosen) else NoCapacity.exit_code


def _choose_names(cloud: str, gpu: str) -> list[str]:
    """The cloud that was named, else all that could have the GPU: this computer rents out none."""
    return [cloud] if cloud else [name for name in CLOUDS if name != "local" or not gpu]


def _for_job(job_file: Path) -> list[Offer]:
    job = load_job(job_file).job
    return [offer for _, offers in gather_offers(job, on_notice=_tell) for offer in offers]


def _tell(text: str) -> None:
    WORDS.print(text, style="yellow")


def _for_need(need: Need, names: Sequence[str]) -> list[Offer]:
    offers: list[Offer] = []
    errors: dict[str, LeaseholdError] = {}
    for name, cloud in open_clouds(names, os.environ).items():
        try:
            offers.extend(cloud.offers(need))
        except (CloudError, CredentialError, SpecError, NoCapacity) as error:
            errors[name] = error
    # That a cloud has no such GPU says little while another one could not be asked.
    raised = min(errors.values(), key=lambda each: isinstance(each, SpecError)) if errors and not offers else None
    for name, told in errors.items():
        if told is not raised:
            WORDS.print(f"{name}: {told.what}", style="dim" if isinstance(told, CredentialError) else "yellow")
    if raised is not None:
        raise raised
    return offers


def _print_offers(offers: Sequence[Offer]) -> None:
    table = make_table("cloud", "GPU", "memory", "tier", "region", "USD/h", "stock", right=("memory", "USD/h"))
    for offer in offers:
        stock = offer.stock.lower() if offer.available else "sold out"
        memory, price = f"{offer.memory_gb} GB", f"{offer.price_usd_per_hour:.2f}"
        tier, region = offer.tier or "-", offer.region or ("any" if offer.available else "-")
        table.add_row(offer.cloud, offer.gpus, memory, tier, region, price, stock or "-")
    print_table(table)
