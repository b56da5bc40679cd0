"""What a Lambda instance is launched with: cloud-init text and the body of the launch. Pure; called by lambda_cloud.py."""

from __future__ import annotations

import re
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from providers.cloud import LaunchRequest
from providers.settings import CloudSettings
from schemas.errors import SpecError

TAG_NAME = "leasehold-name"
TAG_EXPIRY = "leasehold-expires-at"
_FILE_SYSTEM = re.compile(r"[a-zA-Z][0-9a-zA-Z-]{0,59}")


def make_launch_body(request: LaunchRequest, settings: CloudSettings, key_name: str) -> dict[str, Any]:
    """The body of `POST /instance-operations/launch`.

    Reads from request.settings: file_system (the name of one in the offer's region), image_family.
    """
    body: dict[str, Any] = {
        "region_name": request.offer.region,
        "instance_type_name": request.offer.gpu_id,
        "ssh_key_names": [key_name],
        "name": request.name,
        "hostname": request.name,
        "tags": [
            {"key": TAG_NAME, "value": request.name},
            {"key": TAG_EXPIRY, "value": str(request.expires_at)},
        ],
        "user_data": render_user_data(request),
    }
    family = request.settings.get("image_family") or settings.lambda_image_family
    if family:
        body["image"] = {"family": family}
    file_system = request.settings.get("file_system", "")
    if file_system:
        if _FILE_SYSTEM.fullmatch(file_system) is None:
            raise SpecError(
                f"{file_system!r} is no name of a Lambda file system",
                where="file_system",
                fix="Write its name as `GET /file-systems` or the dashboard shows it.",
            )
        body["file_system_names"] = [file_system]
    return body


def render_user_data(request: LaunchRequest) -> str:
    """cloud-init text that pins the SSH host key and lets our client key in."""
    private = request.host_private_key.strip()
    indented = "\n".join(f"    {line}" for line in private.splitlines())
    return (
        "#cloud-config\n"
        "ssh_deletekeys: true\n"
        "ssh_keys:\n"
        f"  ed25519_private: |\n{indented}\n"
        f"  ed25519_public: {derive_public_key(private)}\n"
        "ssh_authorized_keys:\n"
        f"  - {' '.join(request.public_key.split())}\n"
    )


def derive_public_key(host_private_key: str) -> str:
    """`ssh-ed25519 AAAA...` of an OpenSSH private key; raises SpecError for text that is none."""
    try:
        key = load_ssh_private_key(f"{host_private_key.strip()}\n".encode("ascii"), password=None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SpecError(
            "the host key is no OpenSSH private key", where="host_private_key", fix="Let Leasehold make it."
        ) from error
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
