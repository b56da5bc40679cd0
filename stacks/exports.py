"""What `env` prints: exports that make plain `pulumi` work on our stacks in the user's own shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from stacks.run_folder import get_home, prepare_home
from stacks.stack import make_stack_environment


def render_exports(environ: Mapping[str, str]) -> str:
    """Shell exports of what differs from environ; safe to eval more than once."""
    home = get_home()
    prepare_home(home)
    wanted = make_stack_environment(home, environ)
    changed = {name: value for name, value in wanted.items() if environ.get(name) != value}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(changed.items()))
    return exports + "".join(f"unset {name}\n" for name in sorted(environ.keys() - wanted.keys()))
