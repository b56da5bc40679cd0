"""What starts the dead-man on a Lambda instance, for jobs that ask for it: a shell script that reads an account key from its
standard input. Pure; called by the program."""

from __future__ import annotations

import shlex
from pathlib import Path

_SHARED = Path(__file__).parents[1]
_HEREDOC = "LEASEHOLD_DEAD_MAN"


def render_dead_man_start(*, instance_id: str, api_url: str, expires_at: int, heartbeat_timeout_s: int) -> str:
    """Keep the key in a file for this login alone and start dead_man.sh detached; one that runs already stays."""
    settings = {
        "LEASEHOLD_INSTANCE_ID": instance_id,
        "LEASEHOLD_API_URL": api_url,
        "LEASEHOLD_EXPIRES_AT": str(expires_at),
        "LEASEHOLD_HEARTBEAT_TIMEOUT_S": str(heartbeat_timeout_s),
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    script = (_SHARED / "dead_man.sh").read_text(encoding="utf-8").rstrip()
    return f"""set -eu
umask 077
mkdir -p "$HOME/.leasehold"
cd "$HOME/.leasehold"
cat > dead_man.key
if [ -s dead_man.pid ] && kill -0 "$(cat dead_man.pid)" 2>/dev/null; then exit 0; fi
cat > dead_man.sh <<'{_HEREDOC}'
{script}
{_HEREDOC}
export LEASEHOLD_KEY_FILE="$HOME/.leasehold/dead_man.key"
{exports}setsid nohup sh -c 'echo $$ > dead_man.pid; exec sh ./dead_man.sh' > dead_man.log 2>&1 < /dev/null &
"""
