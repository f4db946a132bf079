"""What a person types: refusals before anything is sent, and every option's effect on the load."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from include.loadtest.cli import main
from include.loadtest.records import load
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.objects import PROJECT_ROOT
from tests.include.loadtest.test_protocols import recorder

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("localhost:80", ["--concurrency", "1", "--requests", "1"], ("--url", "'localhost:80'", "http://")),
        ("http://h:99999", ["--concurrency", "1", "--requests", "1"], ("'http://h:99999'", "port")),
        ("http://me:sesame@h", ["--concurrency", "1", "--requests", "1"], ("URL of h", "header")),
        (NOBODY, ["--concurrency", "0", "--requests", "1"], ("--concurrency 0", "greater than 0")),
        (NOBODY, ["--rate", "-1", "--duration", "1"], ("--rate -1.0", "greater than 0")),
        (NOBODY, ["--rate", "5"], ("requests", "duration_s")),
        (NOBODY, ["--rate", "5", "--duration", "0"], ("--duration 0.0", "greater than 0")),
        (NOBODY, ["--requests", "-3"], ("--requests -3", "greater than 0")),
        (NOBODY, ["--protocol", "grpc"], ("--protocol 'grpc'", "openai-chat")),
        (NOBODY, ["--ca-file", "/no/such.pem"], ("--ca-file '/no/such.pem'", "PEM")),
        (NOBODY, ["--rate", "5", "--duration", "1", "--burstiness", "0.5"], ("--burstiness 0.5", "--arrivals gamma")),
        (NOBODY, ["--concurrency", "5", "--requests", "9", "--arrivals", "constant"], ("--arrivals", "--rate")),
        (NOBODY, ["--rate", "5", "--duration", "1", "--arrivals", "ramp"], ("end_rate",)),
        (NOBODY, ["--workload", "nothing"], ("'nothing'", "chat")),
        (NOBODY, ["--workload", "/no/such.yaml"], ("--workload '/no/such.yaml'", "no such file")),
        (NOBODY, ["--concurrency", "2,4,2", "--requests", "1"], ("--concurrency 2,4,2", "twice")),
        (NOBODY, ["--concurrency", "2", "--requests", "1", "--workers", "3"], ("workers 3", "concurrency 2")),
        (NOBODY, ["--max-in-flight", "5", "--requests", "1"], ("--max-in-flight 5", "--rate")),
        (NOBODY, ["--rate", "5", "--requests", "1", "--max-in-flight", "0"], ("--max-in-flight 0", "greater than 0")),
        (NOBODY, ["--ttft-ms", "-5"], ("--ttft-ms -5.0", "greater than 0")),
        (NOBODY, ["--input-tokens", "0"], ("--input-tokens 0", "greater than 0")),
        (NOBODY, ["--header", "no colon"], ("--header 'no colon'", "NAME:VALUE")),
        (NOBODY, ["--header", "Authorization: Bearer sesame"], ("--header 'Authorization'", "--api-key-env")),
        (NOBODY, ["--api-key-env", "NO_SUCH_VARIABLE"], ("--api-key-env 'NO_SUCH_VARIABLE'", "export")),
        (NOBODY, ["--header-env", "X-Key"], ("--header-env 'X-Key'", "NAME=VARIABLE")),
        (NOBODY, ["--protocol", "openai-chat", "--region", "us-west-2"], ("--region 'us-west-2'", "sagemaker")),
        (NOBODY, ["--protocol", "openai-chat", "--body-format", "tgi"], ("--body-format 'tgi'", "openai-chat")),
        (NOBODY, ["--client-key", "k.pem"], ("--client-key 'k.pem'", "--client-cert")),
        (NOBODY, ["--client-cert", "/no/such.pem"], ("--client-cert '/no/such.pem'", "PEM")),
    ],
)
def test_bad_input_is_one_line_that_names_option_and_value(
    url: str, options: list[str], words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--url", url, "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
    assert "sesame" not in said
    assert not (tmp_path / "out").exists()


def test_two_kinds_of_load_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--url", NOBODY, "--rate", "1", "--concurrency", "1"])
    assert "--concurrency: not allowed with argument --rate" in capsys.readouterr().err


def test_a_certificate_file_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    assert main(["run", "--url", "https://127.0.0.1:9", "--ca-file", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_a_bound_alone_cuts_the_workloads_own_levels(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=2, itl_ms=0.1))
    assert main(["run", "--url", server.url, "--workload", "smoke", "--requests", "3", "--out", str(tmp_path)]) in (
        0,
        1,
    )
    written = sorted(tmp_path.glob("smoke-*/requests.parquet"))
    assert written
    assert [len(load(path).phase("measure").table) for path in written] == [3] * len(written)


def test_the_shape_of_arrivals_and_the_workers_are_as_asked(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=2, itl_ms=0.1))
    main(
        ["run", "--url", server.url, "--rate", "10", "--arrivals", "ramp", "--end-rate", "50", "--duration", "1",
         "--workers", "2", "--out", str(tmp_path)]
    )  # fmt: skip
    records = load(next(tmp_path.glob("smoke-*/requests.parquet"))).phase("measure")
    assert len(records.workers) == 2
    times = sorted(records.times("scheduled_ns"))
    middle = (times[0] + times[-1]) / 2
    assert sum(time > middle for time in times) > 1.5 * sum(time <= middle for time in times)


QUICK = Script(ttft_ms=2, itl_ms=0.1)
CLOSED = ["--concurrency", "2", "--requests", "8"]


def folders(out: Path) -> list[Path]:
    return sorted(path.parent for path in out.glob("*/requests.parquet"))


def test_running_again_writes_over_nothing(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(QUICK)
    for _ in range(2):
        assert main(["run", "--url", server.url, *CLOSED, "--out", str(tmp_path)]) in (0, 1)
    assert len(folders(tmp_path)) == 2
    assert all((folder / "result.json").exists() for folder in folders(tmp_path))
    ids = [set(load(folder).table["request_id"].to_pylist()) for folder in folders(tmp_path)]
    assert not ids[0] & ids[1]


def test_a_search_does_not_write_over_an_earlier_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "search.json").write_text("{}")
    search = ["search", "--url", NOBODY, "--ttft-ms", "5", "--out", str(tmp_path)]
    assert main(search) == 2
    assert f"--out '{tmp_path}' holds an earlier search" in capsys.readouterr().err
    assert (tmp_path / "search.json").read_text() == "{}"


def test_a_sweep_is_one_level_for_each_number(
    server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.play(QUICK)
    options = ["--concurrency", "1,2,3", "--requests", "9", "--input-tokens", "5", "--output-tokens", "3"]
    main(["run", "--url", server.url, *options, "--ttft-ms", "10000", "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert [folder.name.split("-")[1] for folder in folders(tmp_path)] == ["c=1", "c=2", "c=3"]
    assert said.count("100.0% of requests") == 3
    assert "  95 %" in said
    table = load(folders(tmp_path)[2]).phase("measure").table
    assert set(table["input_tokens"].to_pylist()) == {5}
    assert set(table["output_tokens"].to_pylist()) == {3}


def test_a_cap_on_an_open_loop_makes_requests_wait_on_our_side(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=50, itl_ms=0.1))
    options = ["--rate", "100", "--requests", "20", "--max-in-flight", "2", "--output-tokens", "2"]
    main(["run", "--url", server.url, *options, "--out", str(tmp_path)])
    records = load(folders(tmp_path)[0]).phase("measure")
    assert records.workers[0]["summary"]["peak_in_flight"] == 2
    assert max(records.between_ms("scheduled_ns", "sent_ns")) > 100


def test_the_limits_of_a_report_are_its_own(
    server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.play(QUICK)
    main(["run", "--url", server.url, *CLOSED, "--out", str(tmp_path)])
    capsys.readouterr()
    for limit, share in (("0.001", 0.0), ("100000", 1.0)):
        main(["report", str(folders(tmp_path)[0]), "--e2e-ms", limit, "--json"])
        assert json.loads(capsys.readouterr().out)["statistics"]["goodput_share"] == share


def test_a_workload_file_may_lie_anywhere(
    server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.play(QUICK)
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nprompts: [{output_tokens: 3}]\nloads: [{mode: closed, concurrency: 1, requests: 4}]\n")
    main(["run", "--url", server.url, "--workload", str(file), "--out", str(tmp_path / "out")])
    assert load(folders(tmp_path / "out")[0]).phase("measure").table["output_tokens"].to_pylist() == [3] * 4
    file.write_text("name: mine\nloads: []\nwarmup: 3\n")
    assert main(["run", "--url", server.url, "--workload", str(file)]) == 2
    said = capsys.readouterr().err
    assert "mine.yaml: loads" in said
    assert "mine.yaml: warmup" in said


def test_every_protocol_can_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    common = ["--concurrency", "1", "--requests", "1", "--no-stream", "--out", str(tmp_path)]
    cases = [
        (["--protocol", "sagemaker", "--endpoint-name", "e", "--region", "us-west-2"], "/endpoints/e/invocations"),
        (["--protocol", "invocations", "--body-format", "openai-completions"], "/invocations"),
        (["--path", "/my/route", "--api-key-env", "MY_KEY", "--header", "X-Team: a b"], "/my/route"),
        (["--header-env", "x-api-key=MY_KEY"], "/v1/chat/completions"),
    ]
    with recorder() as (url, seen):
        for options, path in cases:
            main(["run", "--url", url, *common, *options])
            headers, asked, body = seen[-1]
            assert asked == path
            assert json.loads(body).get("stream", False) is False
            if "--api-key-env" in options:
                assert (headers["authorization"], headers["x-team"]) == ("Bearer sesame", "a b")
            if "--header-env" in options:
                assert headers["x-api-key"] == "sesame"
            if "sagemaker" in options:
                assert "/us-west-2/sagemaker/aws4_request" in headers["Authorization"]
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sesame" not in kept
    assert b"hidden" not in kept


def test_a_page_of_metrics_that_is_not_there_is_said(
    server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.play(QUICK)
    pages = ["--metrics-url", f"{server.url}/mistyped"]
    main(["run", "--url", server.url, *CLOSED, *pages, "--out", str(tmp_path)])
    assert f"no metrics of {server.url}/mistyped: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "search"])
def test_a_folder_that_cannot_be_made_is_one_sentence(
    command: str, server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    options = CLOSED if command == "run" else ["--ttft-ms", "5"]
    assert main([command, "--url", server.url, *options, "--out", str(tmp_path / "file" / "x")]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "file") in said
    assert "Traceback" not in said


def test_an_interrupt_shows_what_was_measured(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(QUICK)
    options = ["--url", server.url, "--concurrency", "2", "--duration", "60", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "include.loadtest", "run", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT_ROOT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )  # fmt: skip
    assert process.stderr is not None
    while "done" not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the generators are told too
    said, wrong = process.communicate(timeout=30)
    assert process.returncode == 130, wrong
    assert "Traceback" not in wrong
    assert "ttft_ms" in said
    assert "STOPPED" in said
    assert load(folders(tmp_path)[0]).phase("measure").table.num_rows > 10
