"""The shell commands that a stack's local Commands run: Dispatch, Join and Done. Pure; compared with stored files in tests.

They are stored in Pulumi's state and may be run on another computer, so every path is quoted and every delete ends with 0.
"""

from __future__ import annotations

import shlex

from schemas.ssh import SshTarget, make_ssh_arguments
from stacks.run_folder import RunFolder

_DRAIN_TIMEOUT_S = 15
_LOG_BYTES = 1_000_000


def render_dispatch_start(folder: RunFolder, socket_dir: str, python: str) -> str:
    """Write the manifest that comes on stdin and start the dispatcher in a session of its own; a live one stays.

    The dispatcher itself makes sure of that: a second one finds dispatch.lock held and ends.
    """
    return f"""set -eu
cd {_quote(folder.root)}
umask 077
cat > manifest.json.new
mv manifest.json.new manifest.json
mkdir -m 700 -p {_quote(socket_dir)}
[ -O {_quote(socket_dir)} ]
{_detach(f"{_quote(python)} -m runtime.dispatcher {_quote(folder.manifest)}", "dispatch.log")}
"""


def render_dispatch_stop(folder: RunFolder, socket_dir: str, python: str) -> str:
    """Stop the dispatcher, keep what it has finished, remove its sockets; never fails."""
    stop = f"{_quote(python)} -m runtime.dispatcher --stop {_quote(folder.manifest)} --timeout 20"
    return f"[ ! -x {_quote(python)} ] || {stop} >/dev/null 2>&1 || true\nrm -rf {_quote(socket_dir)} || true\n"


def render_join(folder: RunFolder, index: int) -> str:
    """Put the machine's record, which comes on stdin, where the dispatcher sees it."""
    return f"""set -eu
cd {_quote(folder.machines)}
rm -f {index}.leaving {index}.drained
cat > .{index}.json.new
mv .{index}.json.new {index}.json
"""


def render_leave(folder: RunFolder, index: int, target: SshTarget) -> str:
    """Drain one machine, bounded, then lay its record aside and fetch its engine's log; never fails.

    The record keeps its time: the ledger tells by it that the machine has worked, and from when on.
    """
    ssh = shlex.join([*make_ssh_arguments(target, connect_timeout_s=4), f"tail -c {_LOG_BYTES} .leasehold/engine.log"])
    return f"""cd {_quote(folder.machines)} 2>/dev/null || exit 0
dispatcher=$(sed -n 's/.*"pid":\\([0-9][0-9]*\\).*/\\1/p' ../dispatch.lock 2>/dev/null)
if [ -e {index}.json ] && [ -n "$dispatcher" ] && kill -0 "$dispatcher" 2>/dev/null; then
  : > {index}.leaving
  tries=0
  while [ ! -e {index}.drained ] && [ $tries -lt {_DRAIN_TIMEOUT_S * 10} ] \\
    && kill -0 "$dispatcher" 2>/dev/null; do
    sleep 0.1; tries=$((tries + 1))
  done
fi
mv -f {index}.json {_quote(target.alias)}.left 2>/dev/null
rm -f {index}.json {index}.leaving {index}.drained
{ssh} > {_quote(folder.engine_log(index))}.new 2>/dev/null </dev/null \\
  && mv {_quote(folder.engine_log(index))}.new {_quote(folder.engine_log(index))} \\
  || rm -f {_quote(folder.engine_log(index))}.new
exit 0
"""


def render_key_delivery(target: SshTarget, key_variable: str, remote: str) -> str:
    """Run a script on a machine with a key of ours on its standard input.

    The key is taken from the environment of whoever runs this: it stands in no argument, no file here, and no state.
    """
    ssh = shlex.join([*make_ssh_arguments(target), remote])
    return f"""set -eu
[ -n "${{{key_variable}:-}}" ] || {{ echo '{key_variable} is not set, and limits.dead_man needs it' >&2; exit 1; }}
printf '%s\\n' "${key_variable}" | {ssh}
"""


def render_done(folder: RunFolder, python: str) -> str:
    """Wait for the end of the batch; only under plain `pulumi up`."""
    return f"exec {_quote(python)} -m stacks.lifecycle.done {_quote(folder.root)}\n"


def _detach(command: str, log: str) -> str:
    """Start command in its own session where the system has setsid, else at least immune to hangups."""
    return f"""if command -v setsid >/dev/null 2>&1; then
  setsid nohup {command} >> {log} 2>&1 < /dev/null &
else
  nohup {command} >> {log} 2>&1 < /dev/null &
fi"""


def _quote(text: object) -> str:
    return shlex.quote(str(text))
