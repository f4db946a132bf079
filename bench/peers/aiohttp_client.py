"""A hand-tuned aiohttp client: what a careful person writes. Arguments: url streams requests tokens."""

import asyncio
import json
import sys
import time

import aiohttp
import orjson
import uvloop


async def main(url: str, streams: int, requests: int, tokens: int) -> None:
    left = iter(range(requests))
    ttfts: list[float] = []
    gaps: list[float] = []
    e2es: list[float] = []
    body = orjson.dumps(
        {
            "model": "reference", "stream": True, "max_tokens": tokens, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": "word " * 32}],
        }
    )  # fmt: skip
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"content-type": "application/json"}) as session:

        async def user() -> None:
            for _ in left:
                start = time.perf_counter()
                first = last = 0.0
                tail = b""
                async with session.post(url + "/v1/chat/completions", data=body) as answer:
                    async for data in answer.content.iter_any():
                        now = time.perf_counter()
                        *events, tail = (tail + data).split(b"\n\n")
                        for event in events:
                            if event[6:] == b"[DONE]":
                                continue
                            choices = orjson.loads(event[6:])["choices"]
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
