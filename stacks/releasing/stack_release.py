"""Releases a run of which this computer has only its stack in a shared backend, such as S3. Called by `release`.

The stack's Lease knows token and clouds, so that destroying it proves the release here as well as where it was started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from schemas.errors import CloudError, LeaseholdError, ReleaseError
from stacks.releasing.destroy import destroy_stack
from stacks.releasing.release import Notice
from stacks.stack import Stack


def find_shared_stack(run: str, home: Path, environment: Mapping[str, str]) -> Stack | None:
    """The stack of that exact name in a backend that other computers share; None when there is none, or no such backend."""
    if not run:
        return None
    folder = home / "elsewhere" / run
    stack = Stack(run, folder, home, environment)
    if stack.environment.get("PULUMI_BACKEND_URL", "").startswith("file://") or not stack.exists():
        return None
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return stack


def release_stack(stack: Stack, *, force: bool, on_notice: Notice) -> None:
    """Destroy the stack, its Lease last, and forget it; raises ReleaseError while absence is not proven.

    force: takes the lock away, whoever holds it. Whether its holder lives cannot be seen from another computer.
    """
    if force:
        stack.unlock()
    reasons = destroy_stack(stack, remove=True, clear_lock=lambda complaint: on_notice(_clear_lock(stack, complaint)))
    if reasons is not None:
        token = _find_token(stack)
        without = f", or without its state: ./inv release {token} --force" if token else ""
        fix = f"Try again: ./inv release {stack.run}{without}   (Pulumi's log: {stack.folder / 'pulumi.log'})"
        raise ReleaseError(f"the release is not verified: {reasons}", where=stack.run, fix=fix)


def _find_token(stack: Stack) -> str:
    """The token of its Lease, which can be read without the passphrase; "" where the state does not have it."""
    try:
        resources = stack.export()["deployment"].get("resources", [])
    except (LeaseholdError, KeyError, ValueError):
        return ""
    return next((str(each.get("id", "")) for each in resources if each["type"].endswith(":Lease")), "")


def _clear_lock(stack: Stack, complaint: str) -> str:
    try:
        return stack.clear_stale_lock(complaint) or ""
    except CloudError as error:
        fix = f"If that process is dead, or its computer: ./inv release {stack.run} --force"
        raise ReleaseError(f"the release is not verified: {error.what}", where=stack.run, fix=fix) from error
