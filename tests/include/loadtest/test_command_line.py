"""What a person types: refusals before anything is sent, and every option's effect on the load."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.loadtest.cli import main
from include.loadtest.records import load
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script

NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("localhost:80", ["--concurrency", "1", "--requests", "1"], ("--url", "'localhost:80'", "http://")),
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
    ],
)
def test_bad_input_is_one_line_that_names_option_and_value(
    url: str, options: list[str], words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--url", url, "--out", str(tmp_path / "out"), *options]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert "Traceback" not in said
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
