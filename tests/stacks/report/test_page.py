"""The report's page: nothing of the user's is code, nothing comes from a network, every state of a run is told."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from schemas.errors import SpecError
from schemas.template import Accelerator, EngineSpec, ModelSource, Template, TemplateSpec
from stacks.planning.plan import save_plan
from stacks.report.data import RunReport, make_report
from stacks.report.page import ECHARTS, render_page
from stacks.report.report import save_report, write_report
from stacks.report.view import describe_release
from stacks.run_folder import RunFolder
from tests.stacks.report.report_runs import (
    add_event,
    add_machine,
    count_durations,
    end_run,
    leave_unverified,
    make_lost_run,
    make_run,
    refuse,
    write_errors,
    write_stats,
)
from tests.stacks.run_files import START, make_progress, write_progress

NOW = START + 2000
ECHARTS_SHA256 = "61f13280aba3161f77fc801bf5f9c786f55f10432153a0683fc5cc0700b013d5"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Outline(html.parser.HTMLParser):
    """Elements that are open, attributes, and the text outside of style and script."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> where {self.open[-3:]} are open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def render(folder: RunFolder) -> str:
    return render_page(make_report(folder, now=NOW))


def read_text(page: str) -> str:
    return re.sub(r"\s+", " ", " ".join(outline(page).texts))


def make_evil_run(parent: Path) -> RunFolder:
    """Everything that a user, a model's maker, an engine or a cloud may write, is markup."""
    folder, plan = make_run(parent, metadata={EVIL: EVIL}, name=EVIL)
    template = Template(
        name=EVIL,
        version="1",
        spec=TemplateSpec(
            engine=EngineSpec(type="vllm", image=EVIL, serve_args=(EVIL,)),
            model_source=ModelSource(type="huggingface", uri=EVIL, revision=EVIL),
            accelerator=Accelerator(type="H100"),
            engine_args={EVIL: EVIL},
            supported_endpoints=("/v1/chat/completions",),
        ),
    )
    folder.plan.unlink()
    save_plan(msgspec.structs.replace(plan, template=template, run=EVIL), folder.plan)
    add_machine(folder, EVIL, "created", at=START)
    add_event(folder, START, "machine_died", f"machine 0 died: {EVIL}", id=EVIL)
    write_errors(folder, [refuse(0, EVIL, custom_id=EVIL)])
    write_stats(folder, [(START + 10, [(0, 5, 0)])])
    write_progress(folder, make_progress("running", total=10, completed=5, failed=1, message=EVIL))
    end_run(folder, total=10, completed=5, failed=1, message=EVIL, job=EVIL)
    return folder


def test_nothing_that_a_user_writes_becomes_an_element(tmp_path: Path) -> None:
    plain, evil = outline(render(make_lost_run(tmp_path, "plain"))), outline(render(make_evil_run(tmp_path)))

    assert set(evil.elements) == set(plain.elements)
    assert evil.elements.count("script") == 3
    assert not [name for name, _ in evil.attributes if name.startswith("on")]
    assert evil.scripts[1:] == plain.scripts[1:]
    text = " ".join(evil.texts)
    assert text.count(EVIL) >= 8, "it is shown, as text"


def test_a_run_whose_name_is_markup_is_text_too(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path, "<b>run&amp;")

    parsed = outline(render(folder))

    assert "b" not in parsed.elements
    assert "<b>run&amp;" in " ".join(parsed.texts)


def test_the_data_cannot_end_its_element(tmp_path: Path) -> None:
    report = make_report(make_lost_run(tmp_path), now=NOW)
    labels = dict.fromkeys(report.labels, "</script>&\u2028")

    data = outline(render_page(msgspec.structs.replace(report, labels=labels))).scripts[0]

    assert not set("<>&\u2028") & set(data)
    assert json.loads(data)["machines"][0]["label"] == "</script>&\u2028"


def test_the_page_may_fetch_nothing_and_run_only_its_own_scripts(tmp_path: Path) -> None:
    parsed = outline(render(make_lost_run(tmp_path)))

    policy = next(value for name, value in parsed.attributes if value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    for script in parsed.scripts[1:]:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    script_part = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in script_part
    loading = {"src", "href", "srcset", "action", "data", "poster"}
    assert [pair for pair in parsed.attributes if pair[0] in loading] == []


def test_the_charts_library_is_the_one_that_was_published() -> None:
    beside = {path.name for path in ECHARTS.parent.iterdir()}

    assert hashlib.sha256(ECHARTS.read_bytes()).hexdigest() == ECHARTS_SHA256
    assert b'.version="6.1.0",' in ECHARTS.read_bytes()
    assert beside == {"echarts.common.min.js", "LICENSE", "LICENSE-d3", "NOTICE"}
    assert "Apache License" in (ECHARTS.parent / "LICENSE").read_text()


def test_what_the_page_is_made_of_is_in_the_package() -> None:
    import tomllib

    patterns = tomllib.loads((ECHARTS.parents[3] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "*"
    ]
    wanted = ["report.html", "report.css", "report.js", "echarts/echarts.common.min.js", "echarts/LICENSE"]

    assert [name for name in wanted if not any(Path(name).match(pattern) for pattern in patterns)] == []
    assert [name for name in wanted if not (ECHARTS.parents[1] / name).is_file()] == []


def test_the_page_renders_from_an_import_elsewhere(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from stacks.run_folder import RunFolder;"
        "from stacks.report.report import save_report;"
        "save_report(RunFolder(Path(sys.argv[1])), Path(sys.argv[2]))"
    )

    subprocess.run(
        [sys.executable, "-P", "-c", code, str(folder.root), str(tmp_path / "page.html")],
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path)},
        check=True,
        timeout=60,
    )

    assert "tickets-1" in (tmp_path / "page.html").read_text()


def test_the_top_says_outcome_counts_cost_time_and_tokens(tmp_path: Path) -> None:
    text = read_text(render(make_lost_run(tmp_path)))

    top = text[: text.index("Machines")]
    for words in ("completed", "Released: verified", "Answered 97 of 100", "Failed 3", "Not run 0", "Cost 2.13 USD"):
        assert words in top
    for words in ("Time 23 min", "Output tokens 5,000", "exit code 10"):
        assert words in top


def test_a_machine_that_died_and_its_successor_are_in_the_table(tmp_path: Path) -> None:
    text = read_text(render(make_lost_run(tmp_path)))

    assert "3 machines, 1 of them lost." in text
    assert "died: its cloud does not know it any more" in text
    assert "1 (2nd)" in text


def test_the_page_says_how_exact_the_times_are_and_which_answers_have_none(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    assert "this run has no histogram of its own" in read_text(render(folder))

    count_durations(folder, [0.11] * 60 + [0.5] * 30 + [4.0] * 6)
    text = read_text(render(folder))
    assert re.search(r"Of 96 answers half came within 11\d ms, nine in ten within 51\d ms", text)
    assert "the slowest within 4 s." in text
    assert "Of 1 more answer the time is not known" in text

    count_durations(folder, [0.11] * 99)
    assert "2 answers were lost and made again" in read_text(render(folder))


def test_without_stats_the_times_of_requests_are_still_there(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)
    count_durations(folder, [0.5] * 97)
    (folder.root / "stats.jsonl").unlink()

    page = render(folder)

    assert "Of 97 answers half came within" in read_text(page)
    assert 'id="durations"' in page
    assert 'id="percentiles"' not in page


def test_an_unverified_release_cannot_be_missed(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path)
    add_machine(folder, "m0", "created", "unconfirmed", at=START, joined_at=START + 60)
    leave_unverified(folder)

    page = render(folder)

    assert '<section class="release bad"' in page
    text = read_text(page)
    assert "RELEASE NOT VERIFIED 1 machine at 3.00 USD/h together may still cost money" in text
    assert "./inv release tickets-1" in text


@pytest.mark.parametrize(
    ("life", "state", "released", "title", "tone"),
    [
        ("alive", "in_progress", "no", "Not released yet: the run is live", ""),
        ("dead", "in_progress", "no", "NOT RELEASED", "bad"),
        ("none", "in_progress", "no", "Not released", "warn"),
        ("over", "failed", "no", "RELEASE NOT VERIFIED", "bad"),
        ("over", "completed", "unverified", "RELEASE NOT VERIFIED", "bad"),
        ("over", "completed", "verified", "Released: verified", "good"),
    ],
)
def test_the_release_is_told_for_every_state(
    tmp_path: Path, life: str, state: str, released: str, title: str, tone: str
) -> None:
    folder, _ = make_run(tmp_path)
    add_machine(folder, "m0", "created", at=START)
    report = make_report(folder, now=NOW)
    outcome = msgspec.structs.replace(report.outcome, life=life, state=state, released=released)

    words = describe_release(msgspec.structs.replace(report, outcome=outcome))

    assert (words.title, words.tone) == (title, tone)
    assert bool(words.command) == (tone in ("bad", "warn"))


def test_an_empty_folder_gives_a_page_that_says_what_is_not_known(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "nothing")
    folder.root.mkdir()

    text = read_text(render(folder))

    for words in ("Not known", "No machine of this run is known.", "Whether lines have failed is not known."):
        assert words in text


def test_a_run_of_many_machines_stays_a_small_page(tmp_path: Path) -> None:
    folder, _ = make_run(tmp_path, replicas=100)
    machines = [(index, START + index) for index in range(100)]
    lines = [(START + 5.0 * n, [(index, 40 * n, 0) for index, _ in machines]) for n in range(1, 721)]
    write_stats(folder, lines)
    write_errors(folder, [refuse(n, f"unknown word {chr(97 + n % 26)}{chr(97 + n // 26 % 26)}") for n in range(1000)])
    write_progress(folder, make_progress("running", total=10_000_000, completed=2_880_000, first_sent_at=START))

    page = render(folder)

    assert len(page) < 1_500_000
    assert json.loads(outline(page).scripts[0])["machines"][99]["label"] == "99"


def test_the_command_writes_into_the_runs_folder_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path))
    folder = make_lost_run(tmp_path / "runs")

    write_report("tick")
    write_report("", output=str(tmp_path))

    written = [str(folder.root / "report.html"), str(tmp_path / "report.html")]
    assert capsys.readouterr().out.split() == written
    assert all(Path(path).read_text().startswith("<!doctype html>") for path in written)


def test_as_json_the_command_prints_what_the_page_would_show_and_writes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LEASEHOLD_HOME", str(tmp_path))
    folder = make_lost_run(tmp_path / "runs")
    count_durations(folder, [0.5] * 97)

    write_report("tick", as_json=True)

    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {field.name for field in msgspec.structs.fields(RunReport)}
    assert printed["outcome"]["completed"] == 97
    assert [bar["death"] for bar in printed["bars"]] == ["", "its cloud does not know it any more", ""]
    assert printed["timing"]["answers"] == 97
    assert printed["labels"] == {"0": "0", "1": "1", "2": "1 (2nd)"}
    assert not (folder.root / "report.html").exists()
    with pytest.raises(SpecError, match="--json writes no page"):
        write_report("tick", as_json=True, output=str(tmp_path))


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    folder = make_lost_run(tmp_path)

    with pytest.raises(SpecError, match="the report cannot be written"):
        save_report(folder, tmp_path / "no" / "such" / "report.html")
