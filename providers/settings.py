"""What the environment says about the clouds, read once and checked; called wherever clouds are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from providers.http.secret import Secret
from schemas.errors import CredentialError, SpecError
from schemas.loopback import is_loopback

RUNPOD_URL = "https://api.runpod.io/v2"
LAMBDA_URL = "https://cloud.lambda.ai/api/v1"
RUNPOD_IMAGE = "vllm/vllm-openai:latest"
_LOCAL_VARIABLES = ("HOME", "PATH", "XDG_STATE_HOME", "LEASEHOLD_LOCAL_CLOUD_DIR", "LEASEHOLD_LOCAL_FAULT")


@dataclass(frozen=True, kw_only=True)
class CloudSettings:
    """Keys are None when they are not set; whether that is an error shows when the cloud is used.

    runpod_ssh_public_key: a further key that may log in to our pods. lambda_ssh_keys: names of keys that stand in the
    account already; the first one is used instead of a per-job key. emulator_pace: divides every wait for our turn, only
    for a base URL on this computer. request_timeout_s: how long one answer may take.
    """

    runpod_api_key: Secret | None = None
    runpod_base_url: str = RUNPOD_URL
    runpod_data_centers: tuple[str, ...] = ()
    runpod_image: str = RUNPOD_IMAGE
    runpod_cloud_type: str = "SECURE"
    runpod_ssh_public_key: str = ""
    lambda_api_key: Secret | None = None
    lambda_base_url: str = LAMBDA_URL
    lambda_region: str = ""
    lambda_ssh_keys: tuple[str, ...] = ()
    lambda_image_family: str = ""
    state_dir: Path
    local_environment: Mapping[str, str] = field(default_factory=dict)
    emulator_pace: float = 1.0
    request_timeout_s: float = 60.0


def list_emulated(settings: CloudSettings) -> tuple[str, ...]:
    """The rented clouds whose API is on this computer: emulators of them."""
    urls = {"runpod": settings.runpod_base_url, "lambda": settings.lambda_base_url}
    return tuple(name for name, url in urls.items() if is_loopback(url))


def load_cloud_settings(environ: Mapping[str, str]) -> CloudSettings:
    """Read the variables of docs/clouds.md; raises SpecError for a value that cannot be meant, CredentialError for a key
    that cannot be sent. A missing key is no error yet."""
    tier = _read_text(environ, "RUNPOD_CLOUD_TYPE").upper() or "SECURE"
    if tier not in ("SECURE", "COMMUNITY"):
        raise _make_wrong("RUNPOD_CLOUD_TYPE", tier, "Write SECURE or COMMUNITY.")
    state_home = _read_folder(environ, "XDG_STATE_HOME", Path(environ.get("HOME") or "/tmp") / ".local/state")
    state_dir = _read_folder(environ, "LEASEHOLD_STATE_DIR", state_home / "leasehold")
    return CloudSettings(
        runpod_api_key=_read_key(environ, "RUNPOD_API_KEY"),
        runpod_base_url=_read_url(environ, "RUNPOD_BASE_URL", RUNPOD_URL),
        runpod_data_centers=tuple(name.upper() for name in _read_names(environ, "RUNPOD_DATA_CENTERS")),
        runpod_image=_read_text(environ, "RUNPOD_IMAGE") or RUNPOD_IMAGE,
        runpod_cloud_type=tier,
        runpod_ssh_public_key=_read_text(environ, "RUNPOD_SSH_PUBLIC_KEY"),
        lambda_api_key=_read_key(environ, "LAMBDA_CLOUD_API_KEY"),
        lambda_base_url=_read_url(environ, "LAMBDA_CLOUD_BASE_URL", LAMBDA_URL),
        lambda_region=_read_text(environ, "LAMBDA_CLOUD_REGION"),
        lambda_ssh_keys=_read_names(environ, "LAMBDA_CLOUD_SSH_KEYS"),
        lambda_image_family=_read_text(environ, "LAMBDA_CLOUD_IMAGE_FAMILY"),
        state_dir=state_dir,
        local_environment={name: environ[name] for name in _LOCAL_VARIABLES if name in environ},
        emulator_pace=_read_number(environ, "LEASEHOLD_EMULATOR_PACE", 1.0),
        request_timeout_s=_read_number(environ, "LEASEHOLD_REQUEST_TIMEOUT_S", 60.0),
    )


def require_key(key: Secret | None, *, variable: str, cloud: str, least_right: str) -> Secret:
    """The key, or the CredentialError that tells a person what to do."""
    if key is None:
        raise CredentialError(
            f"{cloud} needs an API key, and {variable} is not set",
            where=variable,
            fix=f"`export {variable}=...`; the least that it needs: {least_right}. (./inv emulate tries it without an account.)",
        )
    return key


def _read_key(environ: Mapping[str, str], variable: str) -> Secret | None:
    text = environ.get(variable, "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise CredentialError(
            "the key holds blanks or characters that no key has",
            where=variable,
            fix="Copy it again, without quotes and line ends.",
        )
    return Secret(text)


def _read_text(environ: Mapping[str, str], variable: str) -> str:
    """A variable's text without blanks around it; bytes that are no text could not be sent as JSON."""
    text = environ.get(variable, "").strip()
    if not all(line.isprintable() for line in text.splitlines()):
        raise _make_wrong(variable, "a value with unprintable characters", "Write it again, as plain text.")
    return text


def _read_url(environ: Mapping[str, str], variable: str, default: str) -> str:
    text = _read_text(environ, variable).rstrip("/") or default
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable or "@" in text or "?" in text or "#" in text:
        raise _make_wrong(variable, "the URL", f"Write it like {default}, or unset the variable.")
    if parts.scheme == "http" and not is_loopback(text):
        raise _make_wrong(variable, text, "Use https: over http anybody on the way could read the key.")
    return text


def _read_names(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in _read_text(environ, variable).split(",") if name.strip())


def _read_folder(environ: Mapping[str, str], variable: str, default: Path) -> Path:
    text = environ.get(variable, "").strip()
    return Path(text) if text else default


def _read_number(environ: Mapping[str, str], variable: str, default: float) -> float:
    text = environ.get(variable, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.001 <= number <= 1e6:
        raise _make_wrong(variable, repr(text), f"Write a number above 0, for example {default:g}.")
    return number


def _make_wrong(variable: str, value: str, fix: str) -> SpecError:
    return SpecError(f"{value} cannot be used", where=variable, fix=fix)
