"""What may stand after a task's name without a flag, in this order; `arguments` turns it into flags for invoke.

`name` is required, `name?` may be left out, `name+` may be repeated (at least once) and comes last, `name*` may be both.
"""

from __future__ import annotations

POSITIONALS: dict[str, tuple[str, ...]] = {
    "bench": (),
    "cancel": ("run?",),
    "changed-jobs": ("base",),
    "check": (),
    "completion": ("shell?",),
    "demo": (),
    "dispatch": ("input", "outdir"),
    "doctor": (),
    "emulate": (),
    "env": (),
    "follow": ("run?",),
    "logs": ("run?",),
    "new": (),
    "notify": ("run?",),
    "offers": ("job?",),
    "plan": ("job",),
    "reap": (),
    "receipt": ("run?",),
    "release": ("run?",),
    "report": ("run?",),
    "results": ("run?",),
    "resume": ("run?",),
    "retry": ("run?",),
    "run": ("job*",),
    "schema": (),
    "ssh": ("run?", "machine?"),
    "status": ("run?",),
    "test": (),
    "validate": ("job+",),
}
