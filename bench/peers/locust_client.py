"""Locust's FastHttpUser reading events by line. Arguments: url streams requests tokens."""

import gevent.monkey

gevent.monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from locust import FastHttpUser, task  # noqa: E402
from locust.env import Environment  # noqa: E402

URL, STREAMS, REQUESTS, TOKENS = sys.argv[1], *map(int, sys.argv[2:5])
left = iter(range(REQUESTS))
ttfts: list[float] = []
gaps: list[float] = []
e2es: list[float] = []
done = gevent.event.Event()
finished = 0
BODY = {
    "model": "reference", "stream": True, "max_tokens": TOKENS, "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "word " * 32}],
}  # fmt: skip


class User(FastHttpUser):
    host = URL
    network_timeout = connection_timeout = 120.0

    @task
    def ask(self) -> None:
        global finished
        if next(left, None) is None:
            done.wait()
            return
        start = time.perf_counter()
        first = last = 0.0
        with self.client.post("/v1/chat/completions", json=BODY, stream=True, catch_response=True) as answer:
            while line := answer.stream.readline(b"\n"):
                if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                    continue
                now = time.perf_counter()
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    if first:
                        gaps.append(now - last)
                    else:
                        first = now
                    last = now
            answer.success()
        e2es.append(time.perf_counter() - start)
        ttfts.append(first - start)
        finished += 1
        if finished == REQUESTS:
            done.set()


environment = Environment(user_classes=[User])
runner = environment.create_local_runner()
runner.start(STREAMS, spawn_rate=100_000)
done.wait(timeout=600)
print(json.dumps({"ttft": ttfts, "gaps": gaps, "e2e": e2es}), flush=True)
runner.quit()
