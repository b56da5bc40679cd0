"""Clouds by name with the credentials of this process's environment. Called by the resources, the release and the tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

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
