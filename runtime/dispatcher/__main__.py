"""The dispatcher as a process: `python -m runtime.dispatcher [--stop] MANIFEST`, started by Dispatch."""

from __future__ import annotations

import sys

from runtime.dispatcher.dispatcher import main

if __name__ == "__main__":
    sys.exit(main())
