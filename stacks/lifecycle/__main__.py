"""The process that sees a run through: `python -m stacks.lifecycle FOLDER`, started by `./inv run`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from stacks.lifecycle.lifecycle import Lifecycle
from stacks.run_folder import RunFolder, get_home


def main() -> int:
    parser = argparse.ArgumentParser(prog="stacks.lifecycle")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep", action="store_true")
    parsed = parser.parse_args()
    return Lifecycle(RunFolder(parsed.folder), get_home(), os.environ, keep=parsed.keep).run()


if __name__ == "__main__":
    sys.exit(main())
