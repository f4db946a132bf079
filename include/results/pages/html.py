"""Building HTML in which nothing is markup unless we made it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import urlencode

CSP = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
FILE_CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
STYLE = Path(__file__).with_name("style.css")
NAVIGATION = (("verdicts", "Verdicts"), ("endpoints", "Endpoints"), ("cost", "Cost"), ("runs", "Runs"))


@dataclass(frozen=True)
class Files:
    """Pages written as files instead of served.

    :param address: file of a page by its name and query; ``None`` when it is not written, and is then no link.
    :param airflow: Airflow's own address, for links into its UI; empty: there are none.
    """

    address: Callable[[str, Mapping[str, str]], str | None]
    airflow: str = ""


_FILES: ContextVar[Files | None] = ContextVar("files", default=None)


@contextmanager
def as_files(files: Files) -> Iterator[None]:
    """Make every page within stand by itself: its style inside, links to files, no forms."""
    token = _FILES.set(files)
    try:
        yield
    finally:
        _FILES.reset(token)


class Html(str):
    """Text that is markup; everything else is escaped when it is put into markup."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def el(tag: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Return an element; a trailing ``_`` of an attribute's name is dropped, other ``_`` become ``-``.

    ``None`` and ``False`` leave an attribute out, ``True`` sets it without a value.
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        parts.append(f" {label}" if value is True else f' {label}="{escape(str(value))}"')
    inner = join(children)
    if not inner and tag in ("link", "meta", "input", "br"):
        return Html(f"<{tag}{''.join(parts)}>")
    return Html(f"<{tag}{''.join(parts)}>{inner}</{tag}>")


def join(children: Iterable[Child]) -> Html:
    """Return children as markup, one after the other."""
    return Html("".join(_markup(child) for child in children))


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int | float):
        return escape(str(child))
    return join(child)


def link(text: Child, to: str, /, **query: str) -> Html:
    """Return a link to one of our pages; addresses are relative, so that any prefix or folder works."""
    kept = {key: value for key, value in query.items() if value}
    address = _address(to, kept)
    return el("a", text, href=address) if address else el("span", text)


def airflow_link(text: Child, path: str) -> Html | None:
    """Return a link into Airflow's own UI, where its address is known."""
    files = _FILES.get()
    if files is None:
        return el("a", text, href=path, target="_top")
    return el("a", text, href=files.airflow.rstrip("/") + path) if files.airflow else None


def form(*children: Child, action: str, role: str | None = None) -> Html | None:
    """Return a form that asks for another page; nothing where no server answers."""
    return None if _FILES.get() else el("form", children, action=action, method="get", role=role)


def _address(to: str, query: Mapping[str, str]) -> str | None:
    if files := _FILES.get():
        return files.address(to, query)
    return f"{to}?{urlencode(query)}" if query else to


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Child]], *, empty: str = "None.") -> Html:
    """Return a table that scrolls by itself and can be focused; its first column heads the row."""
    lines = [el("tr", el("th", row[0], scope="row"), [el("td", cell) for cell in row[1:]]) for row in rows]
    if not lines:
        return el("section", el("h2", caption), el("p", empty, class_="soft"))
    head = el("thead", el("tr", [el("th", name, scope="col") for name in header]))
    name = "t-" + "".join(char if char.isalnum() else "-" for char in caption.lower())
    body = el("table", el("caption", caption, id=name), head, el("tbody", lines))
    return el("div", body, class_="scroll", tabindex=0, role="region", aria_labelledby=name)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Return a list of names and values; empty values are left out."""
    return el("dl", [(el("dt", name), el("dd", value)) for name, value in pairs if value not in ("", None)])


def badge(outcome: str) -> Html:
    """Return a state as word and sign: colour alone says nothing."""
    signs = {"pass": "✓", "success": "✓", "fail": "✗", "failed": "✗", "inconclusive": "?", "skipped": "–"}
    return el("span", f"{signs.get(outcome, '•')} {outcome}", class_=f"badge {outcome}")


def page(title: str, here: str, *body: Child) -> str:
    """Return a whole page.

    :param here: the navigation entry that is current.
    """
    entries = [
        el("a", label, href=address, aria_current="page" if name == here else None)
        for name, label in NAVIGATION
        if (address := _address(name, {}))
    ]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} – Benchmarks"),
        _style(),
    )
    skip = el("a", "Skip to content", href="#content", class_="skip")
    top = el("header", el("nav", entries, aria_label="Benchmarks"))
    main = el("main", el("h1", title), body, id="content", tabindex=-1)
    return "<!doctype html>" + el("html", head, el("body", skip, top, main), lang="en")


def _style() -> tuple[Html, ...]:
    if _FILES.get() is None:
        return (el("link", rel="stylesheet", href="style.css"),)
    policy = el("meta", http_equiv="Content-Security-Policy", content=FILE_CSP)
    return policy, el("style", Html(STYLE.read_text(encoding="utf-8")))


def figure(value: float | None, unit: str = "") -> str:
    """Return a number as people read it; a dash for what is not known."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def dollars(value: float | None) -> str:
    """Return a price."""
    return "–" if value is None else f"${value:,.2f}"


def percent(value: float | None) -> str:
    """Return a relative change as a signed percentage."""
    return "–" if value is None else f"{value:+.1%}"
