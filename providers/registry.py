"""Every cloud by its name in a job. Whoever needs a cloud gets it here; adding one is a function here and a file beside it.

A cloud's file is imported when that cloud is made: most processes of a run need one cloud or none, and loading the HTTP
client of the others would take each of them 0.1 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from providers.cloud import Cloud
from providers.local.local import make_local_cloud
from providers.settings import CloudSettings
from schemas.errors import SpecError

MakeCloud = Callable[[CloudSettings, float], Cloud]


def _make_runpod(settings: CloudSettings, _price: float) -> Cloud:
    from providers.runpod.runpod import RunPod

    return RunPod(settings)


def _make_lambda(settings: CloudSettings, _price: float) -> Cloud:
    from providers.lambda_cloud.lambda_cloud import LambdaCloud

    return LambdaCloud(settings)


CLOUDS: Mapping[str, MakeCloud] = {
    "local": lambda settings, price: make_local_cloud(settings.local_environment, price_usd_per_hour=price),
    "runpod": _make_runpod,
    "lambda": _make_lambda,
}


def make_cloud(name: str, settings: CloudSettings, *, price_usd_per_hour: float = 0.0) -> Cloud:
    """The cloud of that name; nothing is contacted, and a missing key shows at the first use.

    price_usd_per_hour is what a machine of the local cloud shall cost; real clouds name their own prices.
    """
    make = CLOUDS.get(name)
    if make is None:
        raise SpecError(f"there is no cloud {name!r}", where="cloud", fix=f"Write one of: {', '.join(CLOUDS)}.")
    return make(settings, price_usd_per_hour)
