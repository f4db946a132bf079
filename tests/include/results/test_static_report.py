"""The report as files: every link leads to a file, nothing is fetched, hostile names stay text."""

from __future__ import annotations

import html
from html.parser import HTMLParser
from pathlib import Path

import pytest

from include.results.cli import main
from include.results.pages.board import Board
from include.results.pages.static import write
from include.results.store import ResultsStore
from tests.browser import story
from tests.include.results.builders import record, run_of


class Seen(HTMLParser):
    """Tags and addresses of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in ("src", "href", "action", "srcset", "data"):
                self.sources.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), (tag, name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ResultsStore:
    folder = tmp_path_factory.mktemp("store")
    made = story.write(folder)
    hostile = run_of(3, cell='../..//"><script>x</script>')
    made.put_record(record(3, run=hostile, state="failed", failed_stage="plan", reason=story.HOSTILE, message="m"))
    made.put_record(record(0, report_uri=made.objects.url(f"{run_of(0).path}/report.html")))
    made.put_report(run_of(0).path, "<!doctype html><title>a run's report</title>")
    return made


@pytest.fixture(scope="module")
def site(store: ResultsStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, Seen]]:
    folder = tmp_path_factory.mktemp("out") / "new"
    made = write(Board(store.objects.uri), folder)
    assert made.left_out == 0
    pages = {}
    for path in folder.glob("*.html"):
        seen = Seen()
        seen.feed(text := path.read_text())
        pages[path.name] = (text, seen)
    assert len(pages) == made.pages > 30
    return pages


def test_every_link_leads_to_a_file_of_the_report_and_nothing_is_fetched(site: dict[str, tuple[str, Seen]]) -> None:
    for name, (text, seen) in site.items():
        assert not {"script", "img", "iframe", "link", "form", "object"} & set(seen.tags), name
        assert seen.sources == [], name
        assert {link for link in seen.links if not link.startswith("#")} <= set(site), name
        assert "script-src" not in text
        if not name.startswith("report-"):
            assert "default-src 'none'" in html.unescape(text)
            assert "prefers-color-scheme: dark" in text
            assert (seen.tags.count("h1"), seen.tags.count("main")) == (1, 1), name
            assert len(seen.ids) == len(set(seen.ids)), name


def test_every_page_can_be_reached_from_the_first(site: dict[str, tuple[str, Seen]]) -> None:
    reached, to_do = set(), ["index.html"]
    while to_do:
        name = to_do.pop()
        if name not in reached:
            reached.add(name)
            to_do += [link for link in site[name][1].links if not link.startswith("#")]
    assert reached == set(site)
    assert {name.split("-")[0] for name in site} == {
        "index.html", "series", "compare", "endpoints", "runs", "run", "report", "cost",
    }  # fmt: skip


def test_it_tells_what_the_served_pages_tell(site: dict[str, tuple[str, Seen]]) -> None:
    assert "llama · chat · c=4 · cold" in site["index.html"][0]
    whole = "".join(text for text, _ in site.values())
    assert "node ip-10-0-3-7 could not pull the image" in whole
    assert "outlier +" in whole
    assert story.HOSTILE not in whole
    assert "&lt;script&gt;" in whole


def test_pages_beyond_the_limit_are_text_and_said(
    store: ResultsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--store", store.objects.uri, "report", "--out", str(tmp_path), "--most-pages", "5"]) == 0
    said = capsys.readouterr()
    assert "5 pages" in said.out
    assert "not written; raise --most-pages" in said.err
    assert len(list(tmp_path.glob("*.html"))) == 5


def test_a_folder_with_something_else_is_left_alone(
    store: ResultsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.html").write_text("mine")
    assert main(["--store", store.objects.uri, "report", "--out", str(tmp_path)]) == 2
    assert "FolderInUse" in capsys.readouterr().err
    assert (tmp_path / "thesis.html").read_text() == "mine"
