"""Load clients against a server of known timing: cost, accuracy, start-up; ours beside its peers, one run.

    python -m bench.loadtest [--tools ours,aiohttp] [--streams 128,512] [--reps 3] [--minutes 24]

The server has core 0, the client (all its processes) core 1. CPU is that of the client's whole process tree; cost
per request and token are differences of two runs, so that start-up drops out. Errors are differences between what the
client reports and what the server's log says, so that a late server is not held against a client. Ours is the
generator process; turning its spool into Parquet afterwards is a row of its own (``parquet_ms_per_request``). Rows
are written as they come: what was measured stays when the bench is stopped. When the minutes are used up the peers'
remaining cases are left out, and said so.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench import common, loadtest_truths
from bench import loadtest_clients as clients
from include.errors import PipelineError
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.objects import PROJECT_ROOT

COST = Script(ttft_ms=10, itl_ms=2)
COST_STREAMS, SHORT, MANY, LONG = 64, 500, 2500, 256
TIMEOUT_S = 120
PRIORITY = -10
# These take 10 to 100 times as long for the same: one run, and fewer requests to tell costs apart.
HEAVY, HEAVY_MANY = frozenset({"aiperf", "guidellm", "inference-perf", "llmeter"}), 1500
# Beyond so many streams a run of theirs takes minutes, or they do not get there.
MOST_STREAMS = {"httpx": 128, "llmeter": 128, "inference-perf": 512, "aiperf": 512, "guidellm": 512}


@dataclass
class Outcome:
    """One run of one client."""

    cpu_s: float
    wall_s: float
    peak_rss_mib: float
    started: int
    stdout: bytes
    log: dict[str, Any]
    out: Path


def pinned(core: int, *command: str) -> tuple[str, ...]:
    """Return a command bound to a core, ahead of the machine's other work where we may."""
    priority = ("nice", "-n", str(PRIORITY)) if os.geteuid() == 0 else ()
    return (*priority, "taskset", "-c", str(core), *command)


def run(client: clients.Client, server: ReferenceServer, script: Script, streams: int, requests: int, tokens: int,
        core: int, rivals: int = 0, memory: bool = False, authority: str = "") -> Outcome:  # fmt: skip
    """Run a client once, pinned to a core, beside ``rivals`` busy loops on the same core.

    :param authority: file of the certificate that clients are to trust.
    """
    server.play(script)
    out = Path(tempfile.mkdtemp(prefix="bench-load-"))
    command, given = client.command(server.url, streams, requests, tokens, out)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "OPENAI_API_KEY": "none"}
    if authority:
        environment |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), authority)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic_ns()
    with (out / "stderr").open("wb") as errors, (out / "stdout").open("wb") as output:
        process = subprocess.Popen(
            pinned(core, *command), stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment, cwd=out
        )
    spin = [subprocess.Popen(pinned(core, "sh", "-c", "while :; do :; done")) for _ in range(rivals)]
    try:
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.flush()
        peak = _watch(process, memory)
        process.stdin.close()
    finally:
        end_tree(process)
        for rival in spin:
            rival.kill()
            rival.wait()
    wall = (time.monotonic_ns() - started) / 1e9
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    log = server.log()
    # What the last run's client left unanswered at its end is logged late: not this run's.
    log["answers"] = [answer for answer in log["answers"] if answer["received"] >= started]
    return Outcome(cpu, wall, peak, started, (out / "stdout").read_bytes(), log, out)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and its descendants."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.wait()


def _watch(process: subprocess.Popen[bytes], memory: bool) -> float:
    """Wait for the process; returns the peak memory (PSS) of its tree in MiB."""
    peak, deadline = 0.0, time.monotonic() + TIMEOUT_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            end_tree(process)
            raise TimeoutError(f"{process.args} took longer than {TIMEOUT_S} s")
        total = 0
        try:
            if not memory:
                process.wait(0.5)
                break
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            for member in tree:
                total += member.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, subprocess.TimeoutExpired):
            pass
        peak = max(peak, total / 2**20)
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    return peak


class Bench:
    """Collects rows."""

    def __init__(
        self, tools: list[clients.Client], reps: int, streams: list[int], left_out: dict[str, str], minutes: float
    ) -> None:
        self._tools, self._reps, self._streams = tools, reps, streams
        self._left_out = left_out
        self._deadline = time.monotonic() + 60 * minutes
        self.rows: list[dict[str, Any]] = []
        self.authority = ""
        self.core = max(os.sched_getaffinity(0))

    def add(self, case: str, tool: str, metric: str, values: list[float], unit: str) -> None:
        """Keep the median of some runs, and the runs."""
        shown = [round(value, 4) for value in values]
        row = {
            "case": case,
            "tool": tool,
            "metric": metric,
            "value": statistics.median(shown),
            "unit": unit,
            "runs": shown,
        }
        self.rows.append(row)
        print(f"  {case:16} {tool:14} {metric:22} {row['value']:10.3f} {unit:9} {shown}", flush=True)
        self.write()

    def write(self) -> Path:
        """Write what there is."""
        priority = PRIORITY if os.geteuid() == 0 else 0
        return common.write("loadtest", self.rows, self._left_out, priority=priority)

    def cost(self, client: clients.Client, server: ReferenceServer, suffix: str = "") -> None:
        """Cost of a short request and of a further token, memory, time to the first request."""
        per_request, per_token, memory, first, parquet = [], [], [], [], []
        heavy = client.name in HEAVY
        # Ours is quick to run again, and the work of others on the machine only ever adds to a run.
        for _ in range(1 if heavy else self._reps + 2 if client.name == "ours" else min(self._reps, 2)):
            more = {"core": self.core, "authority": self.authority}
            few = run(client, server, COST, COST_STREAMS, SHORT, 16, memory=True, **more)
            many = run(client, server, COST, COST_STREAMS, HEAVY_MANY if heavy else MANY, 16, **more)
            long = run(client, server, COST, COST_STREAMS, SHORT, LONG, **more)
            counts = [len(outcome.log["answers"]) for outcome in (few, many, long)]
            tokens = [sum(answer["tokens"] for answer in outcome.log["answers"]) for outcome in (few, many, long)]
            if client.name == "wrk":  # it runs for a time, not for a number of requests, and starts at no cost
                few.cpu_s, counts[0], tokens[0] = 0.0, 0, 0
            each = (many.cpu_s - few.cpu_s) / (counts[1] - counts[0])
            per_request.append(each * 1e3)
            extra = long.cpu_s - few.cpu_s - (counts[2] - counts[0]) * each
            per_token.append(extra / (tokens[2] - tokens[0] - (counts[2] - counts[0]) * 16) * 1e6)
            memory.append(few.peak_rss_mib)
            received = min(answer["received"] for answer in few.log["answers"])
            first.append((received - few.started) / 1e9)
            if isinstance(client, clients.Ours):
                before = time.process_time()
                client.figures(many.out, b"")
                parquet.append((time.process_time() - before) / counts[1] * 1e3)
            for outcome in (few, many, long):
                shutil.rmtree(outcome.out, ignore_errors=True)
        self.add("16-token" + suffix, client.name, "cpu_ms_per_request", per_request, "ms")
        self.add("stream" + suffix, client.name, "cpu_us_per_token", per_token, "us")
        if parquet:
            self.add("16-token" + suffix, client.name, "parquet_ms_per_request", parquet, "ms")
        self.add("startup" + suffix, client.name, "first_request_s", first, "s")
        self.add("startup" + suffix, client.name, "peak_rss_mib", memory, "MiB")

    def accuracy(self, client: clients.Client, server: ReferenceServer, streams: int, rivals: int = 0) -> None:
        """Compare what the client says with what the server did, at so many streams."""
        script = Script(ttft_ms=50, itl_ms=10 if streams <= 512 else 25)
        case = f"accuracy-{streams}" + ("-contended" if rivals else "")
        requests = max(3 * streams, 24)
        found: dict[str, list[float]] = {}
        for _ in range(self._reps if client.name == "ours" else 1):
            outcome = run(client, server, script, streams, requests, 64, self.core, rivals)
            try:
                said = client.figures(outcome.out, outcome.stdout)
                for metric, value in _errors(said, outcome.log).items():
                    found.setdefault(metric, []).append(value)
                if isinstance(client, clients.Ours):
                    self._verdict(outcome, found)
            finally:
                shutil.rmtree(outcome.out, ignore_errors=True)
        for metric, values in found.items():
            unit = "streams" if metric == "delivered_streams" else "1" if metric.startswith("flagged") else "ms"
            self.add(case, client.name, metric, values, unit)

    def _verdict(self, outcome: Outcome, found: dict[str, list[float]]) -> None:
        from include.loadtest.records import load
        from include.loadtest.validity import judge

        verdict = judge(load(outcome.out / "ours.parquet"))
        flagged = any(reason.startswith("CLIENT_BOUND") for reason in verdict.reasons)
        found.setdefault("flagged_client_bound", []).append(float(flagged))
        found.setdefault("client_lag_p99", []).append(verdict.client_lag_ms_p99 or 0.0)

    def open_loop(self, server: ReferenceServer) -> None:
        """Delivered rate; a server that stands still for 2 s; a rate that it cannot take for 20 s."""
        rate = self._open(server, Script(ttft_ms=50, itl_ms=10), rate=200, seconds=5)
        sent = rate.times("sent_ns")
        delivered = (len(sent) - 1) / float(np.ptp(sent))
        self.add("open-200", "ours", "rate_error_percent", [abs(delivered / 200 - 1) * 100], "%")

        frozen = self._open(server, Script(ttft_ms=50, itl_ms=10, freeze_at_s=5, freeze_s=2), rate=50, seconds=12)
        due = frozen.times("scheduled_ns")
        truth = np.maximum(due + 0.05, np.where((due + 0.05 >= 5) & (due + 0.05 < 7), 7.0, 0.0)) - due
        said = frozen.between_ms("scheduled_ns", "first_token_ns")
        self.add("frozen-2s", "ours", "ttft_truth_ms", [float(truth.mean() * 1e3)], "ms")
        self.add("frozen-2s", "ours", "ttft_error_ms", [float(said.mean() - truth.mean() * 1e3)], "ms")

        # one at a time, 200 ms each, asked for 10 per second: request k ends at (k + 1) x 200 ms, due at k x 100 ms
        over = self._open(server, Script(ttft_ms=50, itl_ms=10, slots=1), rate=10, seconds=20)
        said = over.between_ms("scheduled_ns", "end_ns")
        truth = np.arange(1, len(said) + 1) * 200.0 - np.arange(len(said)) * 100.0
        self.add("overload-20s", "ours", "e2e_last_truth_ms", [float(truth[-1])], "ms")
        self.add("overload-20s", "ours", "e2e_last_ms", [float(said[-1])], "ms")
        self.add("overload-20s", "ours", "e2e_error_percent", [float((said / truth - 1).mean() * 100)], "%")

    def _open(self, server: ReferenceServer, script: Script, *, rate: float, seconds: float) -> Any:
        """Run an open loop of answers of 16 tokens at constant gaps; returns its measured records."""
        from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
        from include.loadtest.api import Target, load_records, run_load

        server.play(script)
        load = LoadSpec(mode="open", rate=rate, arrivals="constant", duration_s=seconds)
        workload = WorkloadSpec(name="w", prompts=(PromptSpec(output_tokens=16),), loads=(load,), warmup_requests=0)
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_load(Target(base_url=server.url), workload, load, out_dir=Path(folder), salt="open")
            return load_records(outcome.requests_path).phase("measure")

    def run_all(self, certificate: tuple[str, str]) -> None:
        """All cases, tool by tool within each, so that a drift of the machine meets all alike."""
        prefix = pinned(min(os.sched_getaffinity(0)))
        with ReferenceServer(prefix=prefix) as server:
            for client in self._tools:
                self._guard(client, "cost", lambda c=client: self.cost(c, server))
            for streams in self._streams:
                for client in self._tools:
                    if client.name == "wrk":
                        continue
                    if streams > MOST_STREAMS.get(client.name, streams):
                        self._leave_out(client.name, f"accuracy-{streams}: takes it minutes")
                        continue
                    self._guard(client, f"accuracy-{streams}", lambda c=client, n=streams: self.accuracy(c, server, n))
            for client in self._tools:
                if client.name != "wrk":
                    self._guard(client, "contended", lambda c=client: self.accuracy(c, server, 128, rivals=4))
            if any(client.name == "ours" for client in self._tools):
                self.open_loop(server)
                loadtest_truths.measure(server, self.add)
        self.authority = certificate[0]
        with ReferenceServer(certificate=certificate[0], key=certificate[1], prefix=prefix) as server:
            for client in self._tools:
                tool = clients.Ours(certificate[0]) if client.name == "ours" else client
                self._guard(tool, "tls", lambda c=tool: self.cost(c, server, "-tls"))

    def _guard(self, client: clients.Client, case: str, measure: Any) -> None:
        """A peer that fails or comes too late is left out and said so; ours failing fails the bench."""
        if client.name != "ours" and time.monotonic() > self._deadline:
            self._leave_out(client.name, f"{case}: no time left")
            return
        try:
            measure()
        except (OSError, ValueError, KeyError, StopIteration, TimeoutError, ZeroDivisionError, PipelineError) as error:
            if client.name == "ours":
                raise
            self._leave_out(client.name, f"{case}: {error!r}"[:200])

    def _leave_out(self, tool: str, said: str) -> None:
        self._left_out[tool] = "; ".join(filter(None, (self._left_out.get(tool), said)))
        print(f"  {tool:14} left out: {said}", flush=True)


def _errors(said: clients.Figures, log: dict[str, Any]) -> dict[str, float]:
    """Return what the client says less what the server did (ms)."""
    answers = [answer for answer in log["answers"] if answer["tokens"] == 64]
    if not len(said.ttft) or not (np.min(said.ttft) > 0):
        raise ValueError("it reports no times to first token that could be true")
    # The log holds warm-up requests too; what a client reports are the last ones.
    answers = sorted(answers, key=lambda answer: answer["received"])[-len(said.ttft) :]
    writes = [np.array(answer["writes"]) for answer in answers]
    received = np.array([answer["received"] for answer in answers])
    ttft = (np.array([times[0] for times in writes]) - received) / 1e6
    e2e = (np.array([times[-1] for times in writes]) - received) / 1e6
    gaps = np.concatenate([np.diff(times) for times in writes]) / 1e6
    result = {
        "ttft_error_ms": float(np.mean(said.ttft) - ttft.mean()),
        "ttft_p50_error_ms": float(np.median(said.ttft) - np.median(ttft)),
        "ttft_p99_error_ms": float(np.quantile(said.ttft, 0.99) - np.quantile(ttft, 0.99)),
        "e2e_error_ms": float(np.mean(said.e2e) - e2e.mean()),
        "e2e_p50_error_ms": float(np.median(said.e2e) - np.median(e2e)),
        "e2e_p99_error_ms": float(np.quantile(said.e2e, 0.99) - np.quantile(e2e, 0.99)),
        "delivered_streams": float(log["peak"]),
        "server_lag_p99": float(
            np.quantile(
                np.concatenate([times - np.array(a["due"]) for times, a in zip(writes, answers, strict=True)]), 0.99
            )
            / 1e6
        ),
    }
    if len(said.ttft) == len(said.e2e):
        tpot, true_tpot = (said.e2e - said.ttft) / 63, (e2e - ttft) / 63
        result["tpot_error_ms"] = float(tpot.mean() - true_tpot.mean())
        result["tpot_p50_error_ms"] = float(np.median(tpot) - np.median(true_tpot))
        result["tpot_p99_error_ms"] = float(np.quantile(tpot, 0.99) - np.quantile(true_tpot, 0.99))
    if len(said.gaps):
        result["gap_error_ms"] = float(np.median(said.gaps) - np.median(gaps))
        result["gap_mean_error_ms"] = float(np.mean(said.gaps) - np.mean(gaps))
        result["gap_p99_error_ms"] = float(np.quantile(said.gaps, 0.99) - np.quantile(gaps, 0.99))
    return result


def make_certificate(folder: Path) -> tuple[str, str]:
    """Make a self-signed certificate for localhost."""
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, write ``var/bench/loadtest.json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.loadtest", description=__doc__)
    every = "ours,wrk,aiohttp,locust,httpx,llmeter,vllm-bench,inference-perf,aiperf,guidellm"
    parser.add_argument("--tools", default=every)
    parser.add_argument("--streams", default="128,512,32,1024,1", help="in this order")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=24, help="after so many the peers' cases are left out")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    wanted = set(options.tools.split(","))
    if not wanted <= {"ours", "wrk"}:
        print("peers: installing what is missing, each family in its own environment", flush=True)
    tools, left_out = _clients(wanted)
    bench = Bench(tools, options.reps, [int(n) for n in options.streams.split(",")], left_out, options.minutes)
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench.run_all(make_certificate(Path(folder)))
    except KeyboardInterrupt:
        print("stopped; the rows until here are kept", flush=True)
        return 130
    print(f"{bench.write().relative_to(PROJECT_ROOT)}: {len(bench.rows)} rows")
    return 0


def _clients(wanted: set[str]) -> tuple[list[clients.Client], dict[str, str]]:
    """Install and return the clients that are wanted and can be had, and why the others cannot."""
    places = clients.make_environments(wanted)
    makers = [place / "bin" / "python" for name, place in places.items() if name != "load"]
    tokenizer = clients.make_tokenizer(makers, PROJECT_ROOT / "var" / "bench" / "tokenizer")
    known: list[clients.Client] = [
        clients.Ours(), clients.Wrk(),
        *(clients.Script(name, places["load"]) for name in ("aiohttp", "locust", "httpx", "llmeter")),
        clients.VllmBench(places["vllm"], tokenizer),
        clients.InferencePerf(places["inference-perf"], tokenizer), clients.AiPerf(places["aiperf"], tokenizer),
        clients.GuideLlm(places["guidellm"], tokenizer),
    ]  # fmt: skip
    left_out: dict[str, str] = {}
    tools: list[clients.Client] = []
    for client in known:
        problem = client.available() if client.name in wanted else "not asked for"
        if problem:
            left_out[client.name] = problem
        else:
            tools.append(client)
    return tools, left_out


if __name__ == "__main__":
    raise SystemExit(main())
