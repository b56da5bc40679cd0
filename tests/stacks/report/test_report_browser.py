"""The report in a real browser: charts are drawn, nothing complains, nothing is asked of a network, a phone shows it whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stacks.report.report import save_report
from stacks.run_folder import RunFolder
from tests.stacks.report.browser import Page, find_chromium, open_browser
from tests.stacks.report.report_runs import count_durations, make_lost_run, make_run, write_stats
from tests.stacks.report.test_page import make_evil_run
from tests.stacks.run_files import START, make_progress, write_progress

pytestmark = [
    pytest.mark.wire,
    pytest.mark.skipif(find_chromium() is None, reason="no chromium on PATH: apt-get install chromium"),
]
CHARTS = ["timeline", "requests", "tokens", "durations", "percentiles"]
DRAWN = "[...document.querySelectorAll('.chart')].filter(each => each.querySelectorAll('svg path').length > 3).map(each => each.id)"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_browser(tmp_path / "profile") as opened:
        yield opened


def write(folder: RunFolder, parent: Path) -> Path:
    path = parent / "report.html"
    save_report(folder, path)
    return path


async def test_charts_are_drawn_without_a_word_on_the_console_and_without_a_network(page: Page, tmp_path: Path) -> None:
    path = write(make_lost_run(tmp_path), tmp_path)

    for dark in (False, True):
        await page.open(path, dark=dark)
        assert sorted(await page.evaluate(DRAWN)) == sorted(CHARTS)
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(18, 22, 28)" if dark else "rgb(255, 255, 255)")

    assert page.said == []
    assert page.asked == [path.as_uri(), path.as_uri()]


async def test_times_of_requests_stand_at_figures_that_read_well(page: Page, tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    for durations, labels in (
        ([0.004] + [0.03 * 1.05**n for n in range(90)], ["10 ms", "30 ms", "100 ms", "300 ms", "1 s"]),
        ([0.11 + n / 100 for n in range(60)], ["200 ms", "500 ms"]),
        ([2.0, 30.0, 400.0, 5000.0], ["10 s", "60 s", "10 min"]),
        ([0.25] * 5, ["243 ms", "288 ms"]),
    ):
        count_durations(folder, durations)
        await page.open(write(folder, tmp_path))

        texts = await page.evaluate(
            "[...document.querySelectorAll('#durations svg text')].map(each => each.textContent)"
        )
        assert [each for each in texts if each.endswith((" ms", " s", " min"))] == labels
        assert [each for each in texts if each.endswith(" %")] == ["50 %", "90 %", "99 %"]
    assert page.said == []


async def test_a_phone_shows_it_without_scrolling_sideways(page: Page, tmp_path: Path) -> None:
    await page.open(write(make_lost_run(tmp_path), tmp_path), width=380, height=800)

    assert await page.evaluate("document.documentElement.scrollWidth") == 380
    assert await page.evaluate("[...document.querySelectorAll('svg')].every(each => each.clientWidth <= 380)")
    assert sorted(await page.evaluate(DRAWN)) == sorted(CHARTS)


async def test_a_print_from_a_dark_screen_is_light_and_has_its_charts(page: Page, tmp_path: Path) -> None:
    path = write(make_lost_run(tmp_path), tmp_path)
    await page.open(path, dark=True)
    on_screen = await page.evaluate("document.querySelector('#timeline svg').outerHTML")

    await page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    printed = await page.evaluate("document.querySelector('#timeline svg').outerHTML")
    await page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    after = await page.evaluate("document.querySelector('#timeline svg').outerHTML")
    await page.print(tmp_path / "report.pdf")
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    await page.call("Emulation.setEmulatedMedia", media="print", features=[dark])
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ("#7db0ff" in on_screen, "#7db0ff" in printed, "#7db0ff" in after) == (True, False, True)
    assert "#1f5fbf" in printed
    assert ground == "rgb(255, 255, 255)"
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert page.said == []


async def test_markup_of_others_does_nothing(page: Page, tmp_path: Path) -> None:
    path = write(make_evil_run(tmp_path), tmp_path)

    await page.open(path)

    assert page.said == []
    assert page.asked == [path.as_uri()]
    assert await page.evaluate("document.querySelectorAll('img').length") == 0
    assert "timeline" in await page.evaluate(DRAWN)


async def test_a_run_of_many_machines_has_a_line_for_each(page: Page, tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path, replicas=60)
    write_stats(folder, [(START + 5.0 * n, [(index, 40 * n, 0) for index in range(60)]) for n in range(1, 300)])
    write_progress(folder, make_progress("running", total=10_000_000, completed=100, first_sent_at=START))

    await page.open(write(folder, tmp_path))

    assert await page.evaluate("document.querySelectorAll('#requests-each svg path[fill=none]').length") >= 61
    assert page.said == []


async def test_a_folder_with_nothing_in_it_draws_nothing_and_breaks_nothing(page: Page, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "nothing")
    folder.root.mkdir()

    await page.open(write(folder, tmp_path))

    assert await page.evaluate("document.documentElement.dataset.drawn") == "0"
    assert page.said == []


async def test_the_browser_of_these_tests_hears_what_goes_wrong(page: Page, tmp_path: Path) -> None:
    """Without this, a page that is silent because nobody listens would pass all of the above."""
    path = tmp_path / "bad.html"
    path.write_text(
        "<!doctype html><img src='http://127.0.0.1:9/x.png'><script>console.log('hello'); missing()</script>"
    )

    await page.open(path)

    assert any("hello" in each for each in page.said)
    assert any("missing" in each for each in page.said)
    assert "http://127.0.0.1:9/x.png" in page.asked
