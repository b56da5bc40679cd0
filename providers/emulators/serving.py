"""Makes the server of a cloud and says where it is. Called by start_emulator and by the command line."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from providers.emulators.account import Settings
from providers.emulators.cloud_server import CloudServer
from providers.emulators.lambda_cloud.server import LambdaServer
from providers.emulators.runpod.server import RunPodServer

CLOUDS: Mapping[str, type[RunPodServer] | type[LambdaServer]] = {"runpod": RunPodServer, "lambda": LambdaServer}
CONTRACTS = ("september", "august")
# Kind of key, then random letters, so that a test can search for it anywhere.
_KEY_PREFIXES = {"runpod": "rpa_emulated_", "lambda": "secret_emulated_"}
_EXPORTS = {
    "runpod": ("RUNPOD_API_KEY", "RUNPOD_BASE_URL"),
    "lambda": ("LAMBDA_CLOUD_API_KEY", "LAMBDA_CLOUD_BASE_URL"),
}


def make_settings(
    *,
    state_dir: Path,
    api_key: str = "",
    admin_token: str = "",
    speed: float = 1.0,
    seed: int = 0,
    contract: str = "september",
    real_machines: bool = True,
    foreign: int = 0,
) -> Settings:
    """speed: seconds of the cloud in one of ours. real_machines False: pods and instances without any process."""
    if contract not in CONTRACTS:
        raise ValueError(f"contract is one of {', '.join(CONTRACTS)}, not {contract!r}")
    if ":" in str(state_dir.resolve()):
        # Machines would have a PATH that is cut in two, and find this computer's commands in the place of theirs.
        raise ValueError(f"the emulators' folder must have no colon in its path: {state_dir}")
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Settings(
        state_dir=state_dir.resolve(),
        api_key=api_key,
        admin_token=admin_token or secrets.token_hex(16),
        speed=speed,
        seed=seed,
        contract=contract,
        real_machines=real_machines,
        foreign=foreign,
    )


def make_server(cloud: str, settings: Settings) -> CloudServer:
    """The server, not yet listening; a key is made when none was given."""
    key = settings.api_key or _KEY_PREFIXES[cloud] + secrets.token_hex(16)
    return CLOUDS[cloud](msgspec.structs.replace(settings, api_key=key))


def describe(server: CloudServer) -> dict[str, Any]:
    """What a client and a test need to know, as printed by the command line."""
    key_name, url_name = _EXPORTS[server.account.cloud]
    return {
        "cloud": server.account.cloud,
        "base_url": server.base_url,
        "api_key": server.account.settings.api_key,
        "exports": {key_name: server.account.settings.api_key, url_name: server.base_url},
        "admin_url": f"{server.account.url}/_emulator",
        "admin_token": server.account.settings.admin_token,
        "state_dir": str(server.account.settings.state_dir),
    }
