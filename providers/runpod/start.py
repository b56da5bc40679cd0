"""What a pod is created with: its start script, environment and the body of the create. Pure; called by runpod.py."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from providers.cloud import LaunchRequest
from providers.settings import CloudSettings
from schemas.errors import SpecError

MAX_BODY_BYTES = 100_000
"""The service refuses more than 102,400 bytes, and counts what it adds itself."""

DEFAULT_DISK_GB = 100
DEFAULT_BOOT_GRACE_S = 3600
DEFAULT_VOLUME_PATH = "/workspace"
_ENTRYPOINT = ["/bin/sh", "-c"]
_FOLDER = Path(__file__).parent


def make_pod_body(request: LaunchRequest, settings: CloudSettings) -> dict[str, Any]:
    """The body of `POST /pods`; raises SpecError for settings that cannot be sent.

    Reads from request.settings: network_volume (`<id>` or `<id>:<path>`), min_cuda (`12.8`), boot_grace_s.
    """
    offer = request.offer
    gpu: dict[str, Any] = {"id": offer.gpu_id, "count": offer.count}
    if request.settings.get("min_cuda"):
        gpu["minCudaVersion"] = _check_cuda(request.settings["min_cuda"])
    volume, path = _split_volume(request.settings.get("network_volume", ""))
    body: dict[str, Any] = {
        "name": request.name,
        "image": request.image or settings.runpod_image,
        "disk": request.disk_gb if request.disk_gb > 0 else DEFAULT_DISK_GB,
        "ports": ["22/tcp"],
        "env": _make_env(request, settings, path),
        "cloud": offer.tier.upper() or settings.runpod_cloud_type,
        "gpu": gpu,
        "entrypoint": _ENTRYPOINT,
        "cmd": [render_start_script()],
    }
    if offer.region:
        body["dataCenterIds"] = [offer.region]
    if volume:
        body["mounts"] = {"network": [{"volumeId": volume, "path": path}]}
    size = len(json.dumps(body))
    if size > MAX_BODY_BYTES:
        raise SpecError(f"the order for a pod has {size:,} bytes", where="runpod", fix="Shorten RUNPOD_SSH_PUBLIC_KEY.")
    return body


def make_args_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same order for a service that does not know `entrypoint` and `cmd` yet: both as JSON text in `args`."""
    rest = {name: value for name, value in body.items() if name not in ("entrypoint", "cmd")}
    return {**rest, "args": json.dumps({"entrypoint": body["entrypoint"], "cmd": body["cmd"]})}


def render_start_script() -> str:
    """The text of a pod's first process, with the dead-man's script inside."""
    start = (_FOLDER / "start.sh").read_text(encoding="utf-8")
    return start.replace("@DEAD_MAN@", (_FOLDER.parent / "dead_man.sh").read_text(encoding="utf-8").rstrip())


def _make_env(request: LaunchRequest, settings: CloudSettings, volume_path: str) -> dict[str, str]:
    keys = [request.public_key.strip(), settings.runpod_ssh_public_key]
    env = {
        "PUBLIC_KEY": "\n".join(key for key in keys if key),
        "SSH_HOST_ED25519_KEY": encode_host_key(request.host_private_key),
        "LEASEHOLD_NAME": request.name,
        "LEASEHOLD_EXPIRES_AT": str(request.expires_at),
        "LEASEHOLD_HEARTBEAT_TIMEOUT_S": str(request.heartbeat_timeout_s),
        "LEASEHOLD_BOOT_GRACE_S": request.settings.get("boot_grace_s") or str(DEFAULT_BOOT_GRACE_S),
        "LEASEHOLD_API_URL": settings.runpod_base_url,
    }
    if (urlsplit(settings.runpod_base_url).hostname or "").endswith("runpod.io"):
        env["LEASEHOLD_GRAPHQL_URL"] = "https://api.runpod.io/graphql"
    if request.settings.get("network_volume"):
        env["HF_HOME"] = f"{volume_path}/huggingface"
    return env


def encode_host_key(host_private_key: str) -> str:
    """OpenSSH PEM text as the base64 that the start script decodes."""
    text = host_private_key if host_private_key.endswith("\n") else f"{host_private_key}\n"
    return base64.b64encode(text.encode("ascii")).decode("ascii")


def _split_volume(text: str) -> tuple[str, str]:
    volume, _, path = text.partition(":")
    path = path or DEFAULT_VOLUME_PATH
    if volume and not (path.startswith("/") and path.rstrip("/")):
        raise SpecError(f"{text!r} is no network volume", where="network_volume", fix="Write `<id>` or `<id>:/path`.")
    return volume, path.rstrip("/")


def _check_cuda(text: str) -> str:
    if re.fullmatch(r"\d{1,2}\.\d{1,2}", text) is None:
        raise SpecError(f"{text!r} is no CUDA version", where="min_cuda", fix="Write it like 12.8.")
    return text
