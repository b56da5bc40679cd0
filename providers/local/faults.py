"""Faults that tests ask local machines for, e.g. `LEASEHOLD_LOCAL_FAULT=exit@0x0,delay=3@1`. Read by LocalCloud."""

from __future__ import annotations

import re

import msgspec

from schemas.errors import SpecError
from schemas.names import parse_machine_name

# no-capacity: the launch is refused. unclear: the machine starts, the answer is lost. exit: it fails at its start.
# hang: SSH never answers. host-key: it has another host key than it was given. delay=S: SSH answers S seconds late.
# die=S: its own process is killed after S seconds.
KINDS = ("no-capacity", "unclear", "exit", "hang", "host-key", "delay", "die")
_FAULT = re.compile(r"(?P<kind>[a-z-]+)(=(?P<seconds>\d+(\.\d+)?))?(@(?P<index>\d+)(x(?P<attempt>\d+))?)?")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """kind "" is no fault."""

    kind: str = ""
    seconds: float = 0.0


def find_fault(text: str, name: str) -> Fault:
    """The first fault of the list that is meant for the machine of this name; raises SpecError for a wrong list."""
    parsed = parse_machine_name(name)
    for part in filter(None, text.split(",")):
        match = _FAULT.fullmatch(part.strip())
        if match is None or match["kind"] not in KINDS:
            raise SpecError(f"no such fault: {part!r}", where="LEASEHOLD_LOCAL_FAULT", fix=f"Known: {', '.join(KINDS)}")
        place = (match["index"], match["attempt"])
        here = (str(parsed.index), str(parsed.attempt)) if parsed else ("", "")
        if all(wanted in (None, actual) for wanted, actual in zip(place, here, strict=True)):
            return Fault(kind=match["kind"], seconds=float(match["seconds"] or 0))
    return Fault()
