"""What `./inv report` does: a run's folder becomes one HTML page that can be kept, sent and printed."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path

from schemas.errors import SpecError
from schemas.files import replace_file
from stacks.report.data import make_report
from stacks.report.page import render_page
from stacks.run_folder import RunFolder, find_run, get_home
from stacks.terminal.console import print_data, print_text

REPORT_FILE = "report.html"


def write_report(run: str, *, output: str = "", show: bool = False, as_json: bool = False) -> None:
    """Write the page of a run in any state into its folder, or to output; its path on stdout. as_json: what it would show."""
    if as_json and (output or show):
        raise SpecError("--json writes no page", fix="Leave out --output and --show, or --json.")
    folder = find_run(run, get_home())
    if as_json:
        print_data(make_report(folder, now=time.time()))
        return
    path = Path(output).absolute() if output else folder.root / REPORT_FILE
    if path.is_dir():
        path = path / REPORT_FILE
    save_report(folder, path)
    print_text(str(path))
    if show:
        webbrowser.open(path.as_uri())


def save_report(folder: RunFolder, path: Path) -> None:
    """The page as a file, whole or not at all."""
    page = render_page(make_report(folder, now=time.time()))
    try:
        replace_file(path, page.encode("utf-8", "replace"))
    except OSError as error:
        raise SpecError(
            f"the report cannot be written: {error.strerror}",
            where=str(path),
            fix="Name another file with --output.",
        ) from error
