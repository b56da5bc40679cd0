"""Clouds by name with the credentials of this process's environment. Called by the resources, the release and the tasks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

from providers.clock import Waits
from providers.closed_cloud import ClosedCloud
from providers.cloud import Cloud
from providers.registry import make_cloud
from providers.settings import load_cloud_settings
from schemas.errors import CredentialError


def open_clouds(names: Iterable[str], environ: Mapping[str, str] = os.environ) -> dict[str, Cloud]:
    """One client a name; a cloud whose key is missing is there too and raises CredentialError at its first use."""
    settings = load_cloud_settings(environ)
    clouds: dict[str, Cloud] = {}
    for name in names:
        try:
            clouds[name] = make_cloud(name, settings)
        except CredentialError as error:
            clouds[name] = ClosedCloud(error)
    return clouds


CONSOLES = {
    "runpod": "https://console.runpod.io/pods",
    "lambda": "https://cloud.lambda.ai/instances",
}
"""Where a person sees and ends machines by hand."""


def choose_waits(names: Collection[str], environ: Mapping[str, str] = os.environ) -> Waits:
    """How long things may take on these clouds: the local one answers at once, the others within two request timeouts."""
    if set(names) <= {"local"}:
        return Waits(request_timeout_s=5, poll_s=0.2)
    settings = load_cloud_settings(environ)
    return Waits(request_timeout_s=2 * settings.request_timeout_s, poll_s=2.0 / settings.emulator_pace)
