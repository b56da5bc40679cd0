"""`apt-get` on an emulated machine: installs nothing but sshd, so that start scripts for images without it can be tried."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from providers.emulators.machines.machine_file import find_own_folder, load_machine_file


def main(arguments: Sequence[str]) -> int:
    folder = find_own_folder()
    words = [word for word in arguments if not word.startswith("-") and "=" not in word]
    if load_machine_file(folder).apt_get_fails:
        package = words[-1] if words else ""
        sys.stderr.write(
            f"E: Unable to locate package {package}\n" if words[:1] == ["install"] else "E: Failed to fetch\n"
        )
        return 100
    sys.stdout.write("Reading package lists... Done\n")
    if words[:1] == ["install"] and {"openssh-server", "ssh"} & set(words[1:]):
        from providers.emulators.machines.machines import install_sshd

        install_sshd(folder)
        sys.stdout.write("Setting up openssh-server (emulated) ...\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
