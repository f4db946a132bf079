"""Spools, Parquet, data sets, traces, scraped pages, pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.catalog.specs import PromptSpec, Slo
from include.errors import ConfigurationError, IntegrityError
from include.loadtest.api import judge, load_records, summarise
from include.loadtest.datasets import to_entry, write_dataset, write_trace
from include.loadtest.engine.prompts import Entry, TraceEntry
from include.loadtest.prometheus import Sample, parse
from include.loadtest.records import Records, compact, merge, read_shard, shard_table
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.loadtest.spool import META, ROW, Row, SpoolWriter, read_spool
from tests.include.loadtest.conftest import Run, runner


def row(index: int, **changes: Any) -> Row:
    sent = 10**12 + index * 10**7
    marks = np.array([sent + 5_000_000, sent + 9_000_000], dtype="<i8").tobytes()
    values: dict[str, Any] = {
        "request_id": f"r{index}", "index": index, "phase": "measure", "session": -1, "turn": 0, "group": -1,
        "prompt": 0, "scheduled": sent, "ready": sent, "sent": sent, "first_byte": sent + 1,
        "first_token": sent + 5_000_000, "last_token": sent + 9_000_000, "end": sent + 9_500_000, "marks": marks,
        "input_tokens": 3, "output_tokens": 2, "cached_tokens": -1, "asked_input": 3, "asked_output": 2, "status": 200,
        "error_class": "", "error": "", "finish_reason": "stop", "bytes_in": 10, "connect_ns": 0, "reused": True,
        "resent": 0,
    }  # fmt: skip
    return Row(**{**values, **changes})


def write(path: Path, rows: list[Row], worker: int = 0) -> Path:
    spool = SpoolWriter(path)
    spool.add(META, {"anchor_ns": 7, "job": {"worker": worker, "arm": "cold", "load": {"mode": "open"}}})
    for item in rows:
        spool.add(ROW, item)
    spool.close()
    return path


@given(cut=st.integers(0, 10_000), flip=st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_a_torn_or_damaged_spool_keeps_everything_before_the_damage(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    path = write(tmp_path_factory.mktemp("s") / "a.spool", [row(i) for i in range(10)])
    data = path.read_bytes()
    at = cut % len(data)
    path.write_bytes(data[:at] + bytes([data[at] ^ flip]) + data[at + 1 : len(data) - (cut % 7)])
    found = [value for kind, value in read_spool(path) if kind == ROW]
    assert found == [row(i) for i in range(10)][: len(found)]
    whole_before = sum(1 for n in range(10) if data.find(f"r{n}".encode()) + 300 < at)
    assert len(found) >= whole_before or flip == 0


def test_merging_shards_is_exact_in_any_order(tmp_path: Path) -> None:
    rows = [row(i, session=i if i % 2 else -1, error_class="cut" if i == 3 else "") for i in range(40)]
    tables = [shard_table(read_shard(write(tmp_path / f"{w}.spool", rows[w::4], worker=w))) for w in range(4)]
    one, other = merge(tables), merge(reversed(tables))
    assert one.to_pylist() == other.to_pylist()
    alone = merge([shard_table(read_shard(write(tmp_path / "all.spool", rows)))])
    drop = ["worker"]
    assert one.drop_columns(drop).to_pylist() == alone.drop_columns(drop).to_pylist()
    # from Parquet of parts too
    assert compact(tmp_path).exists()


def test_times_are_unix_and_offsets_exact(tmp_path: Path) -> None:
    write(tmp_path / "a.spool", [row(0), row(1, first_token=0, marks=b"", output_tokens=-1)])
    found = load_records(compact(tmp_path)).table.to_pylist()
    assert found[0]["sent_ns"] == 10**12 + 7
    assert found[0]["chunk_offsets_ns"] == [5_000_000, 9_000_000]
    assert found[1]["first_token_ns"] is None
    assert found[1]["output_tokens"] is None
    assert found[1]["chunks"] == 0


def test_statistics_by_hand(tmp_path: Path) -> None:
    rows = [row(i) for i in range(10)] + [row(10, error_class="http_500", status=500, marks=b"", first_token=0)]
    write(tmp_path / "a.spool", rows)
    found = summarise(tmp_path, Slo(ttft_ms=5.0, tpot_ms=4.0))
    assert found.requests_ok == 10
    assert found.requests_failed == 1
    assert found.failures == {"http_500": 1}
    assert found.ttft_ms.p50 == pytest.approx(5.0)
    assert found.tpot_ms.p50 == pytest.approx(4.0)
    assert found.chunk_gap_ms.mean == pytest.approx(4.0)
    assert found.goodput_share is not None
    assert 0.8 < found.goodput_share < 1
    missed = summarise(tmp_path, Slo(ttft_ms=4.9))
    assert missed.goodput_share == 0


def test_a_file_that_holds_no_records_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(IntegrityError, match=r"a\.parquet"):
        load_records(tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(IntegrityError, match="lacks the columns"):
        load_records(tmp_path / "b.parquet")


def test_collecting_twice_or_nowhere_loses_no_record(tmp_path: Path) -> None:
    write(tmp_path / "a.spool", [row(i) for i in range(20)])
    path = compact(tmp_path)
    assert compact(tmp_path) == path  # the same spools again
    (tmp_path / "a.spool").unlink()
    with pytest.raises(ConfigurationError, match="holds no spool"):
        compact(tmp_path)
    write(tmp_path / "other.spool", [row(i) for i in range(15, 60)])
    with pytest.raises(ConfigurationError, match="holds 15 requests that the spools beside it do not"):
        compact(tmp_path)
    assert load_records(path).table.num_rows == 20
    with pytest.raises(ConfigurationError, match="NothingToCollect"):
        compact(tmp_path / "mistyped")
    assert not (tmp_path / "mistyped").exists()


def test_a_runs_folder_is_read_although_metrics_lie_in_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.spool", [row(i) for i in range(5)])
    pq.write_table(pa.table({"unix_ns": [1], "value": [2.0]}), tmp_path / "server-metrics.parquet")
    with pytest.raises(IntegrityError, match="holds no records"):
        load_records(tmp_path / "empty")
    assert load_records(tmp_path).table.num_rows == 5  # spools of a crash
    compact(tmp_path)
    assert load_records(tmp_path).table.num_rows == 5
    (tmp_path / "requests.parquet").rename(tmp_path / "worker-0.parquet")
    assert load_records(tmp_path).table.num_rows == 5
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="torn"):
        load_records(tmp_path)


def test_a_busy_load_is_not_diluted_by_the_wait_before_or_the_drain_after_it(tmp_path: Path) -> None:
    """Two seconds at 95 % of a core, between ten idle ones before the start and forty idle ones of draining."""
    records = Records(shard_table(read_shard(write(tmp_path / "a.spool", [row(i) for i in range(40)]))), [])
    second = 10**9
    beats = [
        {
            "at": at * second,
            "cpu_ns": round(0.95 * min(max(at - 10, 0), 2) * second),
            "wait_ns": 0,
            "late_us": [9_000 if 10 < at <= 12 else 0] * 100,
        }
        for at in range(53)
    ]
    summary = {"t0": 10 * second, "stopped_at": 12 * second}
    records.workers = [{"meta": {}, "health": beats, "summary": summary}]
    verdict = judge(records)
    assert verdict.client_cpu_share == pytest.approx(0.95)
    reasons = [reason for reason in verdict.reasons if reason.startswith("CLIENT_BOUND")]
    assert [reason.partition(": ")[2].partition(" ")[0] for reason in reasons] == ["event", "event", "CPU"]
    # A generator that was killed has no summary: all its beats count.
    records.workers = [{"meta": {}, "health": beats[10:13], "summary": None}]
    assert judge(records).client_cpu_share == pytest.approx(0.95)


SPEC = PromptSpec(kind="dataset", output_tokens=9, turns=2, dataset="prompts.jsonl")


@pytest.mark.parametrize(
    ("given_row", "expected"),
    [
        ({"prompt": "hi"}, Entry([{"role": "user", "content": "hi"}], [], 9)),
        ({"question": "hi", "output_tokens": 4}, Entry([{"role": "user", "content": "hi"}], [], 4)),
        (
            {"conversations": [{"from": f, "value": v} for f, v in (("human", "a"), ("gpt", "b"), ("human", "c"))]},
            Entry([{"role": "user", "content": "a"}], [{"role": "user", "content": "c"}], 9),
        ),
        (
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]},
            Entry([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], [], 9),
        ),
        ({"conversations": [{"from": "gpt", "value": "b"}]}, None),
        ({"prompt": ""}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_published_forms_of_data_sets(given_row: dict[str, Any], expected: Entry | None) -> None:
    assert to_entry(given_row, SPEC) == expected


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_data_set_files(tmp_path: Path, form: str) -> None:
    rows = [{"prompt": f"question {n}"} for n in range(5)]
    source = tmp_path / f"data.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    else:
        source.write_text(json.dumps(rows) if form == "json" else "\n".join(map(json.dumps, rows)))
    target = write_dataset(SPEC.model_copy(update={"dataset": str(source)}), tmp_path / "out.jsonl")
    entries = [msgspec.json.decode(line, type=Entry) for line in target.read_bytes().splitlines()]
    assert [entry.messages[0]["content"] for entry in entries] == [f"question {n}" for n in range(5)]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "not json"])
def test_a_data_set_without_prompts_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "d").write_text(content)
    with pytest.raises(ConfigurationError, match=str(tmp_path / "d")):
        write_dataset(SPEC.model_copy(update={"dataset": str(tmp_path / "d")}), tmp_path / "o")
    with pytest.raises(ConfigurationError):
        write_dataset(SPEC.model_copy(update={"dataset": str(tmp_path / "none")}), tmp_path / "o")


def test_traces_mooncake_and_our_own(tmp_path: Path, server: ReferenceServer, run: Run) -> None:
    lines = [
        {"timestamp": 2000, "input_length": 700, "output_length": 3, "hash_ids": [1, 2]},
        {"timestamp": 1000, "input_length": 700, "output_length": 4, "hash_ids": [1, 3]},
        {"timestamp": 1250, "input_length": 30, "output_length": 2, "hash_ids": [9]},
    ]
    (tmp_path / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)))
    target = write_trace(str(tmp_path / "trace.jsonl"), tmp_path / "out.jsonl")
    found = [msgspec.json.decode(line, type=TraceEntry) for line in target.read_bytes().splitlines()]
    assert [entry.at_s for entry in found] == [1.0, 0.0, 0.25]
    server.play(Script(ttft_ms=2, itl_ms=1))
    load = {"mode": "open", "arrivals": "replay", "trace": str(tmp_path / "trace.jsonl")}
    outcome = run(load=load)
    records = load_records(outcome.requests_path).phase("measure")
    assert records.times("scheduled_ns") == pytest.approx([0, 0.25, 1.0])
    assert records.table["input_tokens"].to_pylist() == [700, 30, 700]
    assert records.table["output_tokens"].to_pylist() == [4, 2, 3]
    again = run(load={**load, "trace": str(outcome.requests_path)})
    assert load_records(again.requests_path).phase("measure").times("scheduled_ns") == pytest.approx([0, 0.25, 1.0])


def test_a_data_set_is_asked_in_order_with_a_salt_when_cold(tmp_path: Path, server: ReferenceServer, run: Run) -> None:
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"prompt": "w " * (n + 1)}) for n in range(3)))
    server.play(Script(ttft_ms=2, itl_ms=1))
    prompt = {"kind": "dataset", "dataset": str(tmp_path / "d.jsonl")}
    outcome = run(load={"concurrency": 1, "requests": 6}, prompt=prompt)
    tokens = load_records(outcome.requests_path).table["input_tokens"].to_pylist()
    assert tokens == [2, 3, 4, 2, 3, 4]  # one word of salt and the prompt's own


LABELS = st.dictionaries(st.sampled_from(["a", "b_1", "le"]), st.text(max_size=12), max_size=3)


@given(st.lists(st.tuples(st.sampled_from(["x_total", "vllm:queue"]), LABELS, st.floats(allow_nan=False))))
def test_prometheus_pages_round_trip(samples: list[tuple[str, dict[str, str], float]]) -> None:
    def escape(text: str) -> str:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

    lines = ["# HELP x_total text", "# TYPE x_total counter", ""]
    for name, labels, value in samples:
        inner = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {value!r} 1700000000" if labels else f"{name} {value!r}")
    found = list(parse("\n".join(lines)))
    assert found == [Sample(name, tuple(sorted(labels.items())), value) for name, labels, value in samples]


@given(st.text(max_size=200))
def test_a_page_of_noise_is_no_error(text: str) -> None:
    list(parse(text))


def test_server_metrics_are_kept_on_the_same_clock_and_counts_compared(server: ReferenceServer, run: Run) -> None:
    # Requests are long beside the gaps between them: a sample cannot by chance fall where nothing runs.
    server.play(Script(ttft_ms=200, itl_ms=1))
    metrics = (f"{server.url}/metrics",)
    outcome = run(load={"concurrency": 2, "duration_s": 2.5}, warmup_requests=2, run_args={"metrics_urls": metrics})
    assert outcome.validity.server_side_requests == outcome.validity.client_side_requests
    samples = pq.read_table(outcome.requests_path.with_name("server-metrics.parquet")).to_pylist()
    records = load_records(outcome.requests_path)
    during = [s for s in samples if records.origin_ns <= s["unix_ns"] <= records.origin_ns + 2_500_000_000]
    running = [s["value"] for s in during if s["name"] == "vllm:num_requests_running"]
    assert len(running) >= 2
    assert max(running) in (1, 2)
    from include.loadtest.api import judge

    assert any("CONTAMINATED" in reason for reason in judge(records, server_side_requests=3).reasons)


def test_command_line(server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from include.loadtest.cli import main

    server.play(Script(ttft_ms=5, itl_ms=1))
    outcome = runner(server.url, tmp_path)(load={"concurrency": 2, "requests": 40})
    assert main(["report", str(outcome.requests_path), "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    assert found["statistics"]["requests_ok"] == 40
    assert main(["compare", str(outcome.requests_path), str(outcome.requests_path)]) in (0, 1)
    assert "1.000" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "nothing.parquet")]) == 2


def test_credentials_go_to_the_targets_own_pages_only(tmp_path: Path) -> None:
    from tests.include.loadtest.test_protocols import recorder

    with recorder() as (url, seen), recorder() as (other, elsewhere):
        pages = (f"{url}/metrics", f"{other}/metrics", "http://127.0.0.1:9/metrics")
        outcome = runner(url, tmp_path, headers={"Authorization": "Bearer sesame"})(
            load={"concurrency": 1, "requests": 2}, stream=False, run_args={"metrics_urls": pages}
        )
    fetched = [headers for headers, path, _ in seen if path == "/metrics"]
    assert fetched
    assert all(headers["Authorization"] == "Bearer sesame" for headers in fetched)
    assert elsewhere
    assert not any("uthorization" in name for headers, _, _ in elsewhere for name in headers)
    assert list(outcome.extension["server_metrics"]["errors"]) == ["http://127.0.0.1:9/metrics"]
