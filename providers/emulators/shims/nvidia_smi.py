"""`nvidia-smi` on an emulated machine: answers for the GPUs that were rented, or fails in one of the ways that were seen."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from providers.emulators.machines.machine_file import MachineFile, find_own_folder, load_machine_file

_DRIVER = "570.124.06"
_CUDA = "12.8"


def main(arguments: Sequence[str]) -> int:
    machine = load_machine_file(find_own_folder())
    fault = FAULTS.get(machine.nvidia_smi)
    if fault is not None:
        return fault()
    if not machine.gpu_count:
        return no_devices()
    sys.stdout.write(answer(machine, list(arguments)))
    return 0


def answer(machine: MachineFile, arguments: list[str]) -> str:
    memory_mib = 1024 if machine.nvidia_smi == "wrong_memory" else machine.gpu_memory_mib
    if "-L" in arguments or "--list-gpus" in arguments:
        lines = [f"GPU {i}: {machine.gpu_name} (UUID: {make_uuid(i)})" for i in range(machine.gpu_count)]
        return "\n".join(lines) + "\n"
    query = next((word.split("=", 1)[1] for word in arguments if word.startswith("--query-gpu=")), None)
    if query is None:
        return f"NVIDIA-SMI {_DRIVER}   Driver Version: {_DRIVER}   CUDA Version: {_CUDA}\n" + "".join(
            f"|  {i}  {machine.gpu_name}   0MiB / {memory_mib}MiB |\n" for i in range(machine.gpu_count)
        )
    style = next((word.split("=", 1)[1] for word in arguments if word.startswith("--format=")), "csv").split(",")
    fields = query.split(",")
    unit = "" if "nounits" in style else " MiB"
    rows = [
        ", ".join(read_field(field, i, machine, memory_mib, unit) for field in fields) for i in range(machine.gpu_count)
    ]
    header = [] if "noheader" in style else [", ".join(fields)]
    return "\n".join([*header, *rows]) + "\n"


def read_field(field: str, index: int, machine: MachineFile, memory_mib: int, unit: str) -> str:
    values = {
        "name": machine.gpu_name,
        "gpu_name": machine.gpu_name,
        "index": str(index),
        "count": str(machine.gpu_count),
        "uuid": make_uuid(index),
        "memory.total": f"{memory_mib}{unit}",
        "memory.free": f"{memory_mib}{unit}",
        "memory.used": f"0{unit}",
        "driver_version": _DRIVER,
        "compute_cap": "9.0",
        "utilization.gpu": "0" if unit == "" else "0 %",
        "temperature.gpu": "31",
    }
    return values.get(field.strip(), "[Not Supported]")


def make_uuid(index: int) -> str:
    return f"GPU-00000000-0000-0000-0000-{index:012d}"


def fail(code: int, text: str) -> Callable[[], int]:
    def run() -> int:
        sys.stderr.write(text + "\n")
        return code

    return run


def hang() -> int:
    while True:
        time.sleep(60)


no_devices = fail(6, "No devices were found")
FAULTS = {
    "failing": fail(
        9,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA"
        " driver is installed and running.",
    ),
    "no_devices": no_devices,
    "error_802": fail(255, "Unable to determine the device handle: CUDA error 802: system not yet initialized"),
    "hang": hang,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
