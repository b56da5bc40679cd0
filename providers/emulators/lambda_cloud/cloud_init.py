"""As much of cloud-init as the launch of a Lambda instance uses: host key, authorized keys, files, commands. Called at a launch."""

from __future__ import annotations

import base64
import io
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from providers.emulators.shims.sudo import AS_ROOT
from providers.local.environment import make_environment
from providers.local.folder import load_spec

MAX_USER_DATA = 1_000_000
LOGIN_HOME = "/home/ubuntu"
_COMMAND_TIMEOUT_S = 300


class UserData(msgspec.Struct, frozen=True, kw_only=True):
    """commands are shell texts, in order."""

    host_private_key: str = ""
    authorized_keys: tuple[str, ...] = ()
    files: tuple[dict[str, Any], ...] = ()
    commands: tuple[str, ...] = ()


def parse_user_data(text: str) -> UserData:
    """Raises ValueError for text that cloud-init would not take; text of another kind than cloud-config or a script is let by."""
    if text.startswith("#!"):
        return UserData(commands=(text,))
    if not text.startswith("#cloud-config"):
        return UserData()
    try:
        content = YAML(typ="safe").load(io.StringIO(text)) or {}
    except YAMLError as error:
        raise ValueError(f"user_data is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("user_data is not a mapping")
    return UserData(
        host_private_key=str((content.get("ssh_keys") or {}).get("ed25519_private", "")),
        authorized_keys=tuple(str(key) for key in content.get("ssh_authorized_keys") or ()),
        files=tuple(content.get("write_files") or ()),
        commands=tuple(
            command if isinstance(command, str) else shlex.join(str(word) for word in command)
            for command in [*(content.get("bootcmd") or ()), *(content.get("runcmd") or ())]
        ),
    )


def write_files(folder: Path, data: UserData) -> None:
    """Write the files; what is not under the login's home goes below the machine's folder instead of this computer's root."""
    for file in data.files:
        path = locate(folder, str(file["path"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        content = str(file.get("content", ""))
        is_base64 = str(file.get("encoding", "")).lower() in ("b64", "base64")
        path.write_bytes(base64.b64decode(content) if is_base64 else content.encode())
        path.chmod(int(str(file.get("permissions", "0644")), 8))


def run_commands(folder: Path, data: UserData) -> None:
    """Run the commands as the machine's root, one after the other, with their output in cloud-init-output.log."""
    environment = make_environment(folder, load_spec(folder)) | {"HOME": str(folder / "root"), AS_ROOT: "1"}
    with (folder / "cloud-init-output.log").open("ab") as log:
        for command in data.commands:
            text = command.replace(LOGIN_HOME, str(folder / "home"))
            subprocess.run(
                ["/bin/sh", "-c", text],
                env=environment,
                cwd=folder / "root",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )


def locate(folder: Path, path: str) -> Path:
    """Where a path of the machine really is; `..` cannot lead out of its folder."""
    inner = os.path.normpath("/" + path.lstrip("/"))
    if inner.startswith(LOGIN_HOME + "/"):
        return folder / "home" / inner.removeprefix(LOGIN_HOME + "/")
    return folder / "files" / inner.lstrip("/")
