"""`runpodctl` on an emulated pod: `remove pod ID` and `stop pod ID` with the pod's own key, as the official images have it."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Sequence

from providers.emulators.machines.machine_file import find_own_folder, load_machine_file

_OPERATIONS = {"remove": "podTerminate", "stop": "podStop"}
_TIMEOUT_S = 30


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 3 or arguments[0] not in _OPERATIONS or arguments[1] != "pod":
        sys.stderr.write("usage: runpodctl remove|stop pod ID\n")
        return 1
    operation = _OPERATIONS[arguments[0]]
    text = f'mutation {{ {operation}(input: {{podId: "{arguments[2]}"}}) }}'
    request = urllib.request.Request(
        f"{load_machine_file(find_own_folder()).api_url}/graphql",
        data=json.dumps({"query": text}).encode(),
        headers={
            "Content-Type": "application/json",
            "User-Agent": "runpodctl",
            "Authorization": f"Bearer {os.environ.get('RUNPOD_API_KEY', '')}",
        },
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
        answer = json.load(response)
    if answer.get("errors"):
        sys.stderr.write(f"Error: {answer['errors'][0]['message']}\n")
        return 1
    sys.stdout.write(f'pod "{arguments[2]}" removed\n')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
