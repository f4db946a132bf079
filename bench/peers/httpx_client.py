"""httpx with uvloop, as most tools use it. Arguments: url streams requests tokens."""

import asyncio
import json
import sys
import time

import httpx
import orjson
import uvloop


async def main(url: str, streams: int, requests: int, tokens: int) -> None:
    left = iter(range(requests))
    ttfts: list[float] = []
    gaps: list[float] = []
    e2es: list[float] = []
    body = {
        "model": "reference", "stream": True, "max_tokens": tokens, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "word " * 32}],
    }  # fmt: skip
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:

        async def user() -> None:
            for _ in left:
                start = time.perf_counter()
                first = last = 0.0
                async with client.stream("POST", url + "/v1/chat/completions", json=body) as answer:
                    async for line in answer.aiter_lines():
                        if not line.startswith("data: ") or line == "data: [DONE]":
                            continue
                        now = time.perf_counter()
                        choices = orjson.loads(line[6:])["choices"]
                        if choices and choices[0]["delta"].get("content"):
                            if first:
                                gaps.append(now - last)
                            else:
                                first = now
                            last = now
                e2es.append(time.perf_counter() - start)
                ttfts.append(first - start)

        await asyncio.gather(*(user() for _ in range(streams)))
    print(json.dumps({"ttft": ttfts, "gaps": gaps, "e2e": e2es}))


uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:5])))
