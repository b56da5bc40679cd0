"""Brings a stack down with Pulumi, over a lock that its backend tells of only then. Called by both ways of releasing."""

from __future__ import annotations

from collections.abc import Callable

from stacks.planning.plan import RELEASE_DEADLINE_S
from stacks.stack import Stack, parse_lock
from stacks.stack_call import StackCall

# Revocation, the wait until listings count, the sweep itself, and Pulumi around them.
DESTROY_TIMEOUT_S = RELEASE_DEADLINE_S + 600


def destroy_stack(
    stack: Stack,
    *,
    remove: bool,
    clear_lock: Callable[[str], None],
    on_call: Callable[[StackCall], None] = lambda _: None,
) -> str | None:
    """None when it went through, else why not. clear_lock gets what a backend such as S3 has said about its lock."""
    reasons = _run_destroy(stack, remove, on_call)
    if reasons is not None and parse_lock(reasons) is not None:
        clear_lock(reasons)
        reasons = _run_destroy(stack, remove, on_call)
    return reasons


def _run_destroy(stack: Stack, remove: bool, on_call: Callable[[StackCall], None]) -> str | None:
    call = stack.start_destroy(remove=remove)
    on_call(call)
    code = call.wait(DESTROY_TIMEOUT_S)
    if code == 0:
        return None
    # Also when it was killed: its language host and providers outlive it.
    call.end()
    reasons = [f"{each.name}: {each.message}" if each.name else each.message for each in call.failures()]
    return "; ".join(reasons) or f"pulumi destroy ended with {code}"
