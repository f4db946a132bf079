"""One run of a generator: prepare, warm up, wait for the start, load, drain, account."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import socket
import statistics
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns, process_time_ns, time_ns
from typing import Any

import msgspec

from include.loadtest.engine import arrivals, calibrate
from include.loadtest.engine.bodies import Shape
from include.loadtest.engine.clock import NS, Timers
from include.loadtest.engine.dispatch import Dispatcher, Render
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.health import Health, peak_rss_kib
from include.loadtest.engine.loops import ClosedLoop, Loop, OpenLoop
from include.loadtest.engine.prompts import Ask, Source, TraceEntry
from include.loadtest.engine.recorder import Recorder
from include.loadtest.engine.surroundings import RunFailedError, read_datasets, resolve, tls_context
from include.loadtest.engine.texts import Corpus
from include.loadtest.engine.words import VOCABULARY
from include.loadtest.job import HARNESS_VERSION, Job, share
from include.loadtest.spool import META, SUMMARY, SpoolError, SpoolWriter

MAX_PREOPENED = 1024
FLUSH_NS = 200_000_000
FRESH_BY_NS = 20_000_000
STOP_GRACE_S = 5.0
EXIT_AT_ONCE = 4

Emit = Callable[[dict[str, Any]], None]


class Generator:
    """Holds the parts of one run.

    :param emit: takes progress events, to be written as JSON lines.
    :param started_ns: monotonic time at which the process came up, for the time to the first request.
    :raises RunFailedError: the endpoint's name does not resolve, or a certificate file cannot be read.
    """

    def __init__(self, job: Job, emit: Emit, started_ns: int) -> None:
        self._job = job
        self._emit = emit
        self._started = started_ns
        self._loop = asyncio.get_running_loop()
        self._spool = SpoolWriter(job.out)
        self._timers = Timers(self._loop)
        self._health = Health(self._timers, self._spool)
        self._recorder = Recorder(self._spool, job.salt, job.load.stop_error_rate, job.keep_texts)
        self._shape = Shape(job.endpoint)
        self._calibration = calibrate.Calibration("none", len(VOCABULARY))
        self._warm: list[Exchange] = []
        self._plan: Loop | None = None
        self._start_line: asyncio.Future[int] = self._loop.create_future()
        self._stop_reason = ""
        self._trace: list[TraceEntry] = []
        self._dispatcher = Dispatcher(
            job.endpoint,
            resolve(job.endpoint),
            tls_context(job.endpoint),
            self._timers,
            self._renderer(),
            salt=job.salt,
            timeout_s=job.timeout_s,
        )

    # control from outside

    def start_at(self, unix_ns: int) -> None:
        """Release the barrier."""
        if not self._start_line.done():
            self._start_line.set_result(unix_ns)

    def stop(self, reason: str) -> None:
        """End the run early: in-flight requests are cut off and recorded as cancelled."""
        self._stop_reason = self._stop_reason or reason
        if not self._start_line.done():
            self._start_line.set_result(0)
        if self._plan is not None:
            self._plan.stop(reason)
        self._dispatcher.abort_all("cancelled", f"the run was stopped: {reason}")
        self._loop.call_later(STOP_GRACE_S, self.end_at_once, "StopFailed", f"stopping ({reason}) took too long")

    def end_at_once(self, reason: str, message: str) -> None:
        """Leave without tidying up, but not without the records."""
        self._emit({"event": "error", "reason": reason, "message": message, "evidence": []})
        with contextlib.suppress(SpoolError):
            self._spool.flush()
        os._exit(EXIT_AT_ONCE)

    # the run

    async def run(self) -> dict[str, Any]:
        """Do the job; returns the summary that is also the spool's last frame.

        :raises RunFailedError: every warm-up request failed, or a data set is empty.
        """
        job = self._job
        self._write_meta()
        corpus = await self._calibrated_corpus()
        source = Source(job, self._shape, corpus, read_datasets(job), self._read_trace())
        await self._warm_up(source)
        plan = await self._prepare(source)
        self._emit({"event": "ready", "worker": job.worker})
        t0 = await self._await_start()
        if not self._stop_reason:
            await self._measure(plan, t0)
        return self._finish(plan, t0, await self._check_texts())

    def _renderer(self) -> Render:
        if self._job.endpoint.sagemaker:
            from include.loadtest.engine.signing import signed_renderer

            return signed_renderer(self._job)
        return self._shape.request

    def _write_meta(self) -> None:
        job = self._job
        hidden = msgspec.structs.replace(job.endpoint, headers=dict.fromkeys(job.endpoint.headers, "…"))
        self._spool.add(
            META,
            {
                "harness_version": HARNESS_VERSION,
                "anchor_ns": time_ns() - monotonic_ns(),
                "job": msgspec.to_builtins(msgspec.structs.replace(job, endpoint=hidden, credentials=None)),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            },
        )
        self._spool.flush()

    async def _calibrated_corpus(self) -> Corpus:
        """Choose the words of synthetic prompts, by the server's tokenizer if it has one."""
        job = self._job
        synthetic = bool(job.load.trace) or any(kind.kind != "dataset" for kind in job.prompts)
        found = await calibrate.single_token_words(VOCABULARY, self._count) if synthetic else None
        if found is None or len(found[0]) < 64:
            return Corpus(VOCABULARY, job.seed)
        words, overhead = found
        corpus = Corpus(words, job.seed)
        lengths = sorted({kind.input_tokens for kind in job.prompts})
        texts = [(corpus.text(n, f"{job.salt}|check|{place}"), n) for place in range(2) for n in lengths]
        checked, off = await calibrate.check(texts, overhead, self._count)
        self._calibration = calibrate.Calibration("server /tokenize", len(words), overhead, checked, off)
        return corpus

    async def _count(self, text: str) -> int | None:
        """Count tokens by the server (vLLM: ``prompt`` → ``count``; llama.cpp: ``content`` → ``tokens``)."""
        endpoint = self._job.endpoint
        if not endpoint.tokenize_path or endpoint.sagemaker:
            return None
        body = {"model": endpoint.model, "prompt": text, "content": text, "add_special_tokens": False}
        side = msgspec.structs.replace(endpoint, path=endpoint.tokenize_path, stream=False)
        payload = Shape(side).request(msgspec.json.encode(body), f"{self._job.salt}-tokenize")
        status, answer = await self._dispatcher.ask_once(lambda: payload)
        if status != 200:
            return None
        try:
            found = json.loads(answer)
            return int(found["count"]) if "count" in found else len(found["tokens"])
        except (ValueError, TypeError, KeyError):
            return None

    def _read_trace(self) -> list[TraceEntry]:
        path = self._job.load.trace
        if path:
            lines = Path(path).read_bytes().splitlines()
            self._trace = [msgspec.json.decode(line, type=TraceEntry) for line in lines if line]
            self._trace.sort(key=lambda entry: entry.at_s)
        return self._trace if any(entry.input_tokens for entry in self._trace) else []

    # before t0

    async def _warm_up(self, source: Source) -> None:
        """Send the warm-up requests one after the other, and in the warm arm every prompt of the pool once."""
        job = self._job
        mine = share(job.warmup_requests, job.worker, job.workers)
        for number in range(mine):
            await self._one(source.warmup(job.worker + number * job.workers), "warmup")
        if mine and not any(exchange.ok for exchange in self._warm):
            seen = sorted({f"{exchange.error_class}: {exchange.error}" for exchange in self._warm})
            raise RunFailedError("WarmupFailed", f"all {mine} warm-up requests failed", seen)
        if job.arm == "warm":
            for ask in source.pool():
                await self._one(ask, "prime")

    async def _one(self, ask: Ask, phase: str) -> None:
        done: asyncio.Future[Exchange] = self._loop.create_future()

        def finished(exchange: Exchange) -> None:
            self._recorder.add(exchange)
            if not done.done():
                done.set_result(exchange)

        if self._stop_reason:
            return
        self._dispatcher.finished = finished
        self._dispatcher.submit(ask, monotonic_ns(), phase)
        exchange = await done
        if phase == "warmup":
            self._warm.append(exchange)

    async def _prepare(self, source: Source) -> Loop:
        """Render requests and open connections ahead of t0."""
        job, load = self._job, self._job.load
        plan: Loop
        if load.mode == "closed":
            users = share(load.concurrency or 1, job.worker, job.workers)
            bound = None if load.requests is None else share(load.requests, job.worker, job.workers)
            source.prepare(bound if bound is not None else max(64, 4 * users))
            connections = users
            plan = ClosedLoop(
                self._dispatcher, source, self._recorder, self._timers, users=users, requests=bound,
                ramp_ns=self._ramp_ns(),
            )  # fmt: skip
        else:
            trace = [entry.at_s for entry in self._trace]
            mine = arrivals.schedule(load, job.seed, trace, job.worker, job.workers)
            if load.concurrency is not None:
                self._dispatcher.limit = share(load.concurrency, job.worker, job.workers) or 1
            source.prepare(len(mine))
            connections = self._connections_for(len(mine), (mine[-1] / NS) if mine else 0)
            plan = OpenLoop(self._dispatcher, source, self._recorder, self._timers, due=mine)
        await self._dispatcher.open(min(connections, MAX_PREOPENED))
        self._dispatcher.finished = plan.on_finished
        self._plan = plan
        return plan

    def _ramp_ns(self) -> int:
        """Spread of a closed loop's first wave: as stated, else the median TTFT seen in the warm-up."""
        load = self._job.load
        if load.ramp_s is not None:
            return round(load.ramp_s * NS)
        seen = [(exchange.first_token or exchange.end) - exchange.sent for exchange in self._warm if exchange.ok]
        ramp = round(statistics.median(seen)) if seen else 0
        return min(ramp, round(load.duration_s * NS / 10)) if load.duration_s else ramp

    def _connections_for(self, requests: int, span_s: float) -> int:
        """Connections that an open loop will need at once: rate × the warm-up's E2E, with room."""
        seen = [(exchange.end - exchange.sent) / NS for exchange in self._warm if exchange.ok]
        rate = requests / span_s if span_s else requests
        wanted = int(rate * (statistics.median(seen) if seen else 0.1) * 1.5) + 4
        cap = self._dispatcher.limit
        return min(wanted, requests, cap if cap is not None else wanted)

    async def _await_start(self) -> int:
        """Return t0 (monotonic ns) when it is near."""
        anchor = time_ns() - monotonic_ns()
        wanted = self._job.start_at_ns or 0
        if self._job.barrier:
            wanted = await self._start_line
        gc.collect()
        gc.freeze()
        gc.disable()
        await self._dispatcher.refresh(wanted - anchor - FRESH_BY_NS)
        t0 = max(wanted - anchor, monotonic_ns() + 1_000_000)
        # Not while a start far ahead is waited for: idle beats would hide busy ones.
        self._timers.at(t0 - 1_000_000, self._health.start)
        return t0

    # from t0

    async def _measure(self, plan: Loop, t0: int) -> None:
        load = self._job.load
        plan.start(t0)
        self._emit({"event": "started", "worker": self._job.worker, "late_ms": self._late_ms(t0)})
        if load.duration_s is not None:
            self._timers.at(t0 + round(load.duration_s * NS), self._time_up)
        self._timers.at(t0 + round(self._job.progress_s * NS), self._progress, t0)
        self._timers.at(t0 + FLUSH_NS, self._flush)
        await plan.done.wait()
        self._health.stop()

    def _late_ms(self, t0: int) -> float:
        """How long after its appointed time the load began (0 without an appointment)."""
        wanted = self._start_line.result() if self._job.barrier else self._job.start_at_ns
        if not wanted:
            return 0.0
        return round(max(0, t0 + time_ns() - monotonic_ns() - wanted) / 1e6, 3)

    def _time_up(self) -> None:
        plan, load = self._plan, self._job.load
        if plan is None:
            return
        if load.mode == "closed":
            plan.stop("duration")
        self._timers.at(monotonic_ns() + round(self._job.timeout_s * NS), self._drain_over)
        if isinstance(plan, OpenLoop):
            plan.end_arrivals()
        self._health.mark()

    def _drain_over(self) -> None:
        """What is not answered one timeout after the load's end will not be waited for."""
        self._dispatcher.abort_all("timeout", "not answered within one request timeout after the load's end")

    def _flush(self) -> None:
        self._spool.flush()
        self._timers.at(monotonic_ns() + FLUSH_NS, self._flush)

    def _progress(self, t0: int) -> None:
        event = {"event": "progress", "worker": self._job.worker, "t": round((monotonic_ns() - t0) / NS, 3)}
        event |= {"in_flight": self._dispatcher.in_flight, **self._recorder.progress()}
        self._emit(event)
        self._timers.at(monotonic_ns() + round(self._job.progress_s * NS), self._progress, t0)

    # after

    async def _check_texts(self) -> list[list[int]]:
        """Count kept answers by the server's tokenizer: pairs of (usage field, counted)."""
        if self._calibration.source == "none" or self._stop_reason:
            return []
        pairs = []
        for text, stated in self._recorder.texts[: self._job.keep_texts]:
            counted = await self._count(text)
            if counted is not None:
                pairs.append([stated, counted - self._calibration.overhead])
        return pairs

    def _finish(self, plan: Loop, t0: int, texts: list[list[int]]) -> dict[str, Any]:
        self._health.stop()
        self._dispatcher.close()
        summary = {
            "t0": t0,
            "ended": monotonic_ns(),
            "stopped_at": plan.stopped_at,
            "stop": self._stop_reason or plan.stopping,
            "issued": plan.issued,
            "recorded": self._recorder.finished,
            "written": self._recorder.written,
            "peak_in_flight": self._dispatcher.peak,
            "late_start_ms": self._late_ms(t0),
            "calibration": msgspec.to_builtins(self._calibration) | {"exact": self._calibration.exact},
            "text_counts": texts,
            "cpu_ns": process_time_ns(),
            "peak_rss_kib": peak_rss_kib(),
            "started": self._started,
        }
        self._spool.add(SUMMARY, summary)
        self._spool.close()
        self._timers.close()
        return summary
