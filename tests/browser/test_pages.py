"""The page tells thirty nights to someone who was not told, to those who may read, and runs nobody's script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page

from include.results.pages.board import Board
from include.results.pages.static import write
from tests.browser import story
from tests.browser.conftest import Site

pytestmark = pytest.mark.browser
ROUTES = ("/", "/style.css", "/verdicts", "/series?id=x", "/compare?a=x&b=y", "/endpoints", "/runs", "/run?path=x",
          "/cost", "/report?path=x", "/file?path=results/x.json", "/docs", "/openapi.json")  # fmt: skip


@pytest.fixture
def page(site: Site, browser: Browser) -> Iterator[Page]:
    """A page logged in as the reader; any error in it fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.add_cookies([{"name": "_token", "value": site.token("reader"), "url": site.url}])
    opened = context.new_page()
    opened.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    yield opened
    context.close()


def test_no_route_answers_a_stranger(site: Site) -> None:
    denied = {"Authorization": f"Bearer {site.token('stranger')}"}
    for route in ROUTES:
        url = f"{site.url}/hyperpod{route}"
        assert requests.get(url, timeout=30, allow_redirects=False).status_code in (401, 404), route
        assert requests.get(url, headers=denied, timeout=30, allow_redirects=False).status_code in (403, 404), route
    for route in ROUTES[:-2]:
        assert requests.get(f"{site.url}/hyperpod{route}", timeout=30, allow_redirects=False).status_code == 401, route
    assert "llama" not in requests.get(f"{site.url}/hyperpod/verdicts", headers=denied, timeout=30).text


def test_the_overview_puts_the_regression_first(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/hyperpod/verdicts")
    first = page.locator("tbody tr").first
    assert "llama · chat · c=4 · cold" in first.inner_text()
    assert "fail" in first.inner_text()
    assert f"since {story.night_name(story.STEP_AT)}" in first.inner_text()


def test_the_history_tells_the_thirty_nights(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/hyperpod/series?id={site.series}")
    told = page.locator("[role=status]").inner_text()
    assert f"since {story.night_name(story.STEP_AT)}, not accepted; confirmed by a re-run" in told
    assert "image: sha256:aaa" in told
    assert "2 night(s) without a result" in told
    chart = page.locator("figure svg").first
    assert f"since {story.night_name(story.STEP_AT)}" in chart.inner_html()
    assert chart.inner_html().count("✗") == 2
    assert "outlier +" in chart.inner_html()
    nights = page.get_by_role("region", name="Nights", exact=True)
    assert nights.locator("tbody tr").count() == story.NIGHTS
    for night in story.FAILED:
        row = nights.locator("tr", has_text=story.night_name(night))
        assert "ImagePullBackOff" in row.inner_text()
    assert "outlier: +3" in nights.locator("tr", has_text=story.night_name(story.OUTLIER)).inner_text()
    assert page.locator("svg text.slo").count() == 1
    assert page.locator("svg text.knee").count() == 1


def test_drill_down_reaches_run_report_and_records(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/hyperpod/series?id={site.series}")
    page.get_by_role("link", name=story.night_name(story.STEP_AT), exact=True).click()
    assert page.locator("h1").inner_text().startswith("Run scheduled__")
    assert page.get_by_role("link", name="Run and logs in Airflow").get_attribute("href") == (
        f"/dags/nightly_benchmark/runs/scheduled__{story.night_name(story.STEP_AT)}"
    )
    with page.expect_download() as download:
        page.get_by_role("link", name="requests").first.click()
    assert download.value.path().read_bytes()[:4] == b"PAR1"
    page.goto(f"{site.url}/hyperpod/series?id={site.series}")
    page.get_by_role("link", name=story.night_name(story.FAILED[0]), exact=True).click()
    assert "node ip-10-0-3-7 could not pull the image" in page.locator("main").inner_text()


def test_two_runs_are_compared_by_their_requests(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/hyperpod/series?id={site.series}")
    row = page.get_by_role("region", name="Nights", exact=True).locator("tr", has_text=story.night_name(story.STEP_AT))
    row.get_by_role("link", name="against the night before").click()
    assert page.locator("svg").count() == 2
    assert "image" in page.get_by_role("region", name="What differs between the runs").inner_text()


def test_hostile_names_are_text_and_no_script_runs(site: Site, page: Page) -> None:
    for path in ("verdicts", "runs", f"verdicts?q={story.HOSTILE}", "cost?rate=3", "endpoints"):
        answer = page.goto(f"{site.url}/hyperpod/{path}")
        assert answer is not None
        assert "script-src" not in answer.headers["content-security-policy"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert page.title() != "owned"
        assert page.locator("script, img").count() == 0
    page.goto(f"{site.url}/hyperpod/verdicts")
    page.get_by_role("link", name="<script>").click()
    assert story.HOSTILE in page.locator("h1").inner_text()
    assert page.title() != "owned"


def test_files_outside_results_and_runs_are_not_served(site: Site) -> None:
    reader = {"Authorization": f"Bearer {site.token('reader')}"}
    for path in ("../passwords.json", "results/../../passwords.json", "intents/x.json", "/etc/passwd.json", "results/"):
        answer = requests.get(f"{site.url}/hyperpod/file", params={"path": path}, headers=reader, timeout=30)
        assert answer.status_code == 404, path


def test_the_page_works_by_keyboard_and_says_what_its_pictures_show(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/hyperpod/verdicts")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    seen = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.tagName + (document.activeElement.getAttribute('role') || '')"))
    assert {"A", "INPUT", "BUTTON", "DIVregion"} <= seen
    for name in ("verdicts", f"series?id={site.series}"):
        page.goto(f"{site.url}/hyperpod/{name}")
        assert page.locator("svg:not([aria-label])").count() == 0
        assert page.locator("html[lang=en] main h1").count() == 1
        assert page.locator("th:not([scope])").count() == 0


def test_airflow_shows_it_in_its_menu(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/plugin/benchmarks")
    frame = page.frame_locator("iframe")
    assert frame.locator("h1").inner_text(timeout=60_000) == "Latest verdicts"
    with page.context.expect_event("response", lambda one: "/hyperpod/series" in one.url):
        frame.get_by_role("link", name="llama · chat · c=4").first.click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_in_both_schemes(site: Site, page: Page, scheme: str) -> None:
    """Text has a contrast of at least 4.5 to 1 against its ground; the pictures are kept beside the log."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for name, path in (
        ("verdicts", "verdicts"),
        ("history", f"series?id={site.series}"),
        ("cost", "cost"),
        ("endpoints", "endpoints"),
    ):
        page.goto(f"{site.url}/hyperpod/{path}")
        page.screenshot(path=site.folder / f"{name}-{scheme}.png", full_page=True)
    for selector in ("main p", ".soft", "a", ".badge.fail", ".badge.inconclusive", "thead th"):
        page.goto(f"{site.url}/hyperpod/verdicts" if selector != ".soft" else f"{site.url}/hyperpod/cost")
        assert _contrast(page, selector) >= 4.5, (scheme, selector)


def _contrast(page: Page, selector: str) -> float:
    ink, paper = page.evaluate(
        "s => [getComputedStyle(document.querySelector(s)).color, getComputedStyle(document.body).backgroundColor]"
        ".map(c => c.match(/\\d+/g).slice(0, 3).map(Number))",
        selector,
    )

    def luminance(colour: list[int]) -> float:
        parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((luminance(ink), luminance(paper)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_inventory_lists_what_exists_with_age_owner_expiry_and_cost(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/hyperpod/endpoints")
    rows = {row.inner_text().split("\t")[0]: row.inner_text() for row in page.locator("tbody tr").all()}
    assert "✓ in use" in rows["llama-in-use"]
    assert "1.5 h" in rows["llama-in-use"]
    assert f"scheduled__{story.night_name(29)}" in rows["llama-in-use"]
    assert "$1.52/h\t$2." in rows["llama-in-use"]
    assert "✗ expired" in rows["llama-expired"]
    assert "… being removed" in rows[story.HOSTILE]
    assert "3 endpoint(s) hold 3 accelerator(s), cost $4.56/h and have cost $5" in page.locator("main").inner_text()
    page.get_by_role("link", name=f"scheduled__{story.night_name(29)}").click()
    assert page.locator("h1").inner_text() == f"Run scheduled__{story.night_name(29)}"


def test_the_same_pages_as_files_fetch_nothing(site: Site, page: Page, tmp_path: Path) -> None:
    write(Board(str(site.folder / "store")), tmp_path)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.emulate_media(color_scheme="dark")
    page.goto(f"file://{tmp_path}/index.html")
    page.get_by_role("link", name="llama · chat · c=4").first.click()
    assert "confirmed by a re-run" in page.locator("[role=status]").inner_text()
    page.get_by_role("link", name="TPOT p50, ms").click()
    page.get_by_role("link", name="Endpoints").click()
    assert "llama-expired" in page.locator("main").inner_text()
    assert page.title() != "owned"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 29)"
    assert len(fetched) == 4
    assert all(url.startswith(f"file://{tmp_path}/") for url in fetched)
