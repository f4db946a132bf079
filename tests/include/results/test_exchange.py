"""Other tools' files go in and come out unchanged; what is broken is refused with line and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.errors import ConfigurationError, IntegrityError
from include.results.exchange import formats, llmd, llmd_model, suite, vllm
from include.results.exchange.reading import Document, line_of, read_document
from include.results.store import ResultsStore
from tests.include.results.builders import provenance, result, statistics

DATA = Path(__file__).parents[1] / "loadtest" / "data"
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
figures = st.floats(0, 1e7, allow_nan=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(
    str.strip
)


@st.composite
def vllm_files(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(0, 1000))
    content = {
        "date": "20260331-101500", "backend": draw(names), "model_id": draw(names), "completed": count,
        "failed": draw(st.integers(0, 9)), "duration": draw(st.floats(0.1, 1e4)), "num_prompts": count,
        "request_rate": draw(st.one_of(st.just("inf"), st.floats(0.1, 100))),
        "max_concurrency": draw(st.one_of(st.none(), st.integers(1, 256))),
        "total_input_tokens": draw(st.integers(0, 10**9)), "total_output_tokens": draw(st.integers(0, 10**9)),
        "request_throughput": draw(figures), "output_throughput": draw(figures),
        "total_token_throughput": draw(figures), "request_goodput": draw(st.one_of(st.none(), figures)),
        draw(names.map(lambda text: f"x-{text}")): draw(names),
    }  # fmt: skip
    for name in ("ttft", "tpot", "itl", "e2el"):
        content |= {f"{what}_{name}_ms": draw(figures) for what in ("mean", "median", "std", "p99")}
    return content


@st.composite
def llmd_reports(draw: st.DrawFn) -> dict[str, Any]:
    unit, total = draw(st.sampled_from(["s", "ms"])), draw(st.integers(0, 5000))
    points = {name: draw(figures) for name in ("mean", "p50", "p99", "p0p1", "stddev")}
    return {
        "version": draw(st.sampled_from(["0.2", "0.2.1"])),
        "run": {"uid": draw(names), "eid": draw(names), "keywords": draw(st.lists(names, max_size=2)),
                "time": {"start": "2026-03-01T00:00:00Z", "end": "2026-03-01T00:05:00Z", "duration": "PT300S"}},
        "scenario": {
            "stack": [{"metadata": {"label": "e"}, "standardized": {"model": {"name": draw(names)}}}],
            "load": {"standardized": {"tool": "inference-perf", "tool_version": "0.7", "rate_qps": 2.5}},
        },
        "results": {"request_performance": {"aggregate": {
            "latency": {"time_to_first_token": {"units": unit, **points},
                        "inter_token_latency": {"units": f"{unit}/token", **points}},
            "throughput": {"output_token_rate": {"units": "tokens/s", "mean": draw(figures)}},
            "requests": {"total": total, "failures": draw(st.integers(0, total)),
                         "output_length": {"units": "count", "mean": 32.0}},
        }}, "observability": {"anything": draw(st.lists(figures, max_size=3))}},
    }  # fmt: skip


def _write(folder: Path, content: Any, name: str = "file.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")
    return path


def _only(path: Path, form: str = "auto") -> Any:
    ((found, _),) = formats.read(path, form)
    return found


@SETTINGS
@given(vllm_files())
def test_vllm_files_come_out_as_they_went_in(tmp_path: Path, content: dict[str, Any]) -> None:
    once = _only(_write(tmp_path, content))
    assert json.loads(formats.write([once], "vllm-bench")) == content
    again = _only(_write(tmp_path, formats.write([once], "vllm-bench")))
    assert again == once
    assert once.statistics.output_tokens_per_s == content["output_throughput"]
    assert once.statistics.ttft_ms.p50 == content["median_ttft_ms"]


@SETTINGS
@given(llmd_reports())
def test_llmd_reports_come_out_as_they_went_in(tmp_path: Path, content: dict[str, Any]) -> None:
    once = _only(_write(tmp_path, content))
    assert json.loads(formats.write([once], "llm-d")) == content
    assert _only(_write(tmp_path, formats.write([once], "llm-d"))) == once
    latency = content["results"]["request_performance"]["aggregate"]["latency"]["time_to_first_token"]
    scale = 1e3 if latency["units"] == "s" else 1.0
    assert once.statistics.ttft_ms.p99 == pytest.approx(latency["p99"] * scale)
    assert once.statistics.duration_s == 300


@SETTINGS
@given(st.lists(st.tuples(names, st.integers(1, 64), st.integers(0, 99), figures, figures), min_size=1), st.booleans())
def test_csv_suites_come_out_as_they_went_in(tmp_path: Path, rows: list[tuple[Any, ...]], ttft: bool) -> None:
    header = [*suite.COLUMNS, *(suite.TTFT if ttft else ())]
    written = []
    for model, concurrency, ok, latency, rate in rows:
        row = dict.fromkeys(header, "")
        row |= {"use_case": "chat", "concurrency": str(concurrency), "successful": str(ok), "model": model,
                "timestamp": "2026-03-31T10:15:00", "aggregate_output_tok_sec": repr(rate),
                "latency_p50": repr(latency)}  # fmt: skip
        written.append(row)
    import csv

    path = tmp_path / "suite.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(written)
    found = [item for item, _ in formats.read(path)]
    text = formats.write(found, "csv")
    assert list(csv.DictReader(text.splitlines())) == written
    path.write_text(text)
    assert [item for item, _ in formats.read(path)] == found


def test_our_own_result_survives_the_superset_and_its_figures_every_format(tmp_path: Path) -> None:
    ours = result(3)
    assert _only(_write(tmp_path, formats.write([ours], "llm-d-superset"))) == ours
    report = json.loads(formats.write([ours], "llm-d"))
    assert set(report) == {"version", "run", "scenario", "results"}
    back = _only(_write(tmp_path, report))
    for name in ("ttft_ms", "tpot_ms", "e2e_ms", "chunk_gap_ms"):
        assert getattr(back.statistics, name).p99 == getattr(ours.statistics, name).p99
    other = _only(_write(tmp_path, formats.write([ours], "vllm-bench")))
    assert other.statistics.output_tokens_per_s == ours.statistics.output_tokens_per_s
    ((row, _),) = formats.read(_write(tmp_path, formats.write([ours], "csv"), "x.csv"))
    assert row.statistics.e2e_ms.p99 == ours.statistics.e2e_ms.p99


@pytest.mark.parametrize(("name", "form"), [("aiperf.jsonl", "aiperf"), ("guidellm.json", "guidellm")])
def test_per_request_files_are_summarised_and_stored(tmp_path: Path, name: str, form: str) -> None:
    ((found, table),) = formats.read(DATA / name, model="smollm2", workload="chat")
    assert found.statistics.requests_ok > 0
    assert table is not None
    assert table.num_rows == found.statistics.requests_ok + found.statistics.requests_failed
    assert found.provenance.harness == form
    store = ResultsStore.open(str(tmp_path))
    assert store.put_result(found, None).result_id == found.result_id
    with pytest.raises(ConfigurationError, match="--model"):
        formats.read(DATA / name)


@pytest.mark.parametrize(
    ("change", "line", "field"),
    [
        (lambda text: text.replace('"completed": 5', '"completed": "5"'), 4, "completed"),
        (lambda text: text.replace('"duration": 2.5', '"duration": -1'), 3, "duration"),
        (lambda text: text.replace(' "completed": 5,\n', ""), 1, "completed"),
        (lambda text: text[:60], 5, "(file)"),
        (lambda text: text.replace('"request_rate": "inf"', '"request_rate": "fast"'), 8, "request_rate"),
        (lambda text: text.replace('"ttfts": []', '"ttfts": [1], "itls": [[1], [2]]'), 10, "ttfts"),
        (lambda text: "[1]", 1, "(file)"),
        (lambda text: text.replace('"completed": 5', '"completed": 5.5'), 4, "completed"),
        (lambda text: text.replace('"model_id": "m"', '"model_id": " "'), 2, "model_id"),
        (lambda text: text.replace('"ttfts"', '"date": "last week", "ttfts"'), 10, "date"),
    ],
)
def test_a_broken_vllm_file_is_refused_with_line_and_field(tmp_path: Path, change: Any, line: int, field: str) -> None:
    good = {"model_id": "m", "duration": 2.5, "completed": 5, "total_input_tokens": 1, "total_output_tokens": 2,
            "output_throughput": 1.0, "request_rate": "inf", "request_throughput": 2.0, "ttfts": []}  # fmt: skip
    path = _write(tmp_path, change(json.dumps(good, indent=1)))
    with pytest.raises(IntegrityError) as caught:
        formats.read(path, "vllm-bench")
    assert caught.value.message.startswith(f"{path}:{line}: field {field}: ")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": "0.1"}, "version"),
        ({"surprise": 1}, "surprise"),
        ({"run": {}}, "run.uid"),
        ({"results": {}}, "results.request_performance.aggregate.requests.total"),
    ],
)
def test_an_older_or_foreign_report_is_refused(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    base = json.loads(formats.write([result(0)], "llm-d"))
    with pytest.raises(IntegrityError, match=f"field {field}:"):
        formats.read(_write(tmp_path, base | change), "llm-d")


def test_a_unit_that_is_not_a_latency_is_refused(tmp_path: Path) -> None:
    text = json.dumps(llmd.write(result(0)), indent=1).replace('"units": "ms"', '"units": "watts"', 1)
    with pytest.raises(IntegrityError, match=r":\d+: field .*time_to_first_token.units: is 'watts'"):
        formats.read(_write(tmp_path, text), "llm-d")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model,use_case\nm,chat\n", ":1: field concurrency:"),
        (",".join(suite.COLUMNS) + "\na,b,3\n", ":2: field total_requests: the row has 3 of 24"),
        (",".join(suite.COLUMNS) + "\n" + ",".join(["e", "chat", "four", *["1"] * 20, "2026-03-31"]) + "\n",
         ":2: field concurrency: is 'four'"),
        (",".join(suite.COLUMNS) + "\n" + ",".join(["e", "chat", "4", *["1"] * 20, "soon"]) + "\n",
         ":2: field timestamp: is 'soon'"),
    ],
)  # fmt: skip
def test_a_broken_csv_is_refused_with_line_and_column(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(IntegrityError, match=said.replace("(", r"\(")):
        formats.read(_write(tmp_path, text, "suite.csv"))


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (b"[" * 100_000, "x.json", "cannot be read"),
        (b'{"completed": ' + b"9" * 5000 + b"}", "x.json", "cannot be read"),
        (b'{"model_id": "\\uD800"}', "x.json", "cannot be read"),
        (b"run: 2024-99-99", "x.yaml", "cannot be read: month must be"),
        (b"use_case,\xff\n", "x.csv", r":1: field \(row\): cannot be read"),
        (",".join(suite.COLUMNS).encode() + b"\n" + b"x" * 200_000, "x.csv", r":2: field \(row\): cannot be read"),
        (",".join(suite.COLUMNS).encode() + b"\n", "x.csv", "no rows"),
        (",".join(suite.COLUMNS).encode() + b"\n" + b",".join([b"e", b"chat", b"4", *[b"1"] * 16, b"", b"", b"", b"",
         b"2026-03-31"]) + b"\n", "x.csv", ":2: field model: is empty"),
    ],
)  # fmt: skip
def test_what_no_parser_can_read_is_refused_not_crashed_on(
    tmp_path: Path, content: bytes, name: str, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=said):
        formats.read(path, "csv" if name.endswith("csv") else "vllm-bench")


def test_a_byte_order_mark_as_spreadsheets_write_it_is_no_part_of_a_field(tmp_path: Path) -> None:
    for name, form in (("a.csv", "csv"), ("a.json", "vllm-bench")):
        path = _write(tmp_path, "\ufeff" + formats.write([result(0)], form), name)
        assert _only(path).statistics.requests_ok == 400


def test_a_cut_jsonl_and_an_older_guidellm_are_refused(tmp_path: Path) -> None:
    lines = (DATA / "aiperf.jsonl").read_text().splitlines()
    cut = _write(tmp_path, "\n".join([*lines[:2], lines[2][:100]]), "cut.jsonl")
    with pytest.raises(IntegrityError, match=r"cut.jsonl:3: field \(line\)"):
        formats.read(cut, model="m")
    content = json.loads((DATA / "guidellm.json").read_text())
    del content["metadata"]
    with pytest.raises(IntegrityError, match=r"field metadata\.guidellm_version: is missing"):
        formats.read(_write(tmp_path, content), model="m")


@pytest.mark.parametrize("value", ["x", 1e400, True, {}])
def test_a_figure_that_is_no_number_is_refused_with_its_field(tmp_path: Path, value: Any) -> None:
    lines = [json.loads(line) for line in (DATA / "aiperf.jsonl").read_text().splitlines()]
    lines[1]["metrics"]["usage_completion_tokens"] = {"value": value}
    path = _write(tmp_path, "\n".join(json.dumps(line) for line in lines), "x.jsonl")
    with pytest.raises(IntegrityError, match=r":2: field metrics\.usage_completion_tokens\.value: is "):
        formats.read(path, model="m")
    content = json.loads((DATA / "guidellm.json").read_text())
    content["benchmarks"][0]["requests"]["successful"][0]["info"]["timings"]["request_end"] = value
    with pytest.raises(IntegrityError, match=r"successful\[\]\.info\.timings\.request_end: is "):
        formats.read(_write(tmp_path, content), model="m")


anything = st.recursive(
    st.none() | st.booleans() | figures | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@SETTINGS
@given(anything, st.sampled_from(["llm-d", "vllm-bench"]))
def test_any_other_json_is_refused_with_a_field(tmp_path: Path, content: Any, form: str) -> None:
    with pytest.raises(IntegrityError, match="field"):
        formats.read(_write(tmp_path, content), form)


def test_lines_are_those_of_the_file() -> None:
    text = '{\n "a": {\n  "b": 1,\n  "c": 2\n }\n}'
    assert (line_of(text, "a.c"), line_of(text, "a.missing"), line_of(text, "z")) == (4, 2, 1)


def test_a_scenario_of_another_shape_is_refused_not_crashed_on(tmp_path: Path) -> None:
    base = json.loads(formats.write([result(0)], "llm-d"))
    for broken in ({"scenario": []}, {"scenario": {"stack": [1]}}, {"scenario": {"load": {"standardized": []}}}):
        with pytest.raises(IntegrityError, match="field scenario"):
            formats.read(_write(tmp_path, base | broken), "llm-d")


def test_documents_are_read_once_more_from_yaml(tmp_path: Path) -> None:
    import yaml

    content = llmd.write(result(0))
    path = _write(tmp_path, yaml.safe_dump(content), "report.yaml")
    assert isinstance(read_document(path), Document)
    assert _only(path).statistics.requests_ok == 400
    assert vllm.read(read_document(_write(tmp_path, vllm.write(result(0))))).statistics.requests_ok == 400


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"statistics": statistics(None, ok=0, tokens_per_s=0.0, goodput_rps=None)},
        {"load_spec": {"mode": "open", "rate": 2.5}},
        {"load_spec": {"mode": "open", "rate": "inf"}},
        {"provenance": provenance(parallelism={"tp": 2, "ours": "x"}, replicas=2, endpoint_uid="uid", spec_digest="")},
    ],
)
def test_what_we_export_is_what_the_format_allows(changes: dict[str, Any]) -> None:
    """Fields that the published schema demands of each part, one by one: it is not on PyPI."""
    content = llmd.write(result(0, **changes))
    (component,) = content["scenario"]["stack"]
    load = content["scenario"]["load"]
    assert {"label", "cfg_id"} <= set(component["metadata"])
    assert component["standardized"]["role"] in ("replica", "prefill", "decode")
    assert set(component["standardized"]["accelerator"]["parallelism"]) <= {
        "tp",
        "dp",
        "dp_local",
        "workers",
        "ep",
        "pp",
    }
    assert set(load["metadata"]) <= {"schema_version", "cfg_id", "description"}
    assert {"tool", "tool_version", "source", "input_seq_len"} <= set(load["standardized"])
    assert set(content) == {"version", "run", "scenario", "results"}
    assert set(content["results"]) == {"request_performance"}
    for latency in content["results"]["request_performance"]["aggregate"]["latency"].values():
        assert {"units", "mean"} <= set(latency)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("scenario.stack.0.standardized.role", "aggregate", "role"),
        ("scenario.stack.0.metadata.cfg_id", None, "cfg_id"),
        ("scenario.load.standardized.rate_qps", 0, "rate_qps"),
        ("scenario.load.metadata.label", "x", "label: Extra inputs are not permitted"),
        ("results.goodput", 1.0, "goodput: Extra inputs are not permitted"),
        ("results.request_performance.aggregate.latency.request_latency.units", "watts", "units"),
        ("results.request_performance.aggregate.latency.request_latency.mean", float("inf"), "finite"),
        ("results.request_performance.aggregate.requests.total", -1, "total"),
    ],
)
def test_a_report_that_the_format_does_not_allow_is_not_written(path: str, value: Any, said: str) -> None:
    content = llmd.write(result(0))
    place: Any = content
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if part.isdigit() else place[part]
    place[last] = value
    with pytest.raises(IntegrityError, match=said):
        llmd_model.check(content)
