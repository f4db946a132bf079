"""Forwarding one HTTP request, unbuffered both ways: for the load balancer and the router."""

from __future__ import annotations

import aiohttp
from aiohttp import web

HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "host", "content-length",
    }
)  # fmt: skip


async def forward(
    http: aiohttp.ClientSession, request: web.Request, base: str, body: bytes | None = None
) -> web.StreamResponse:
    """Send a request on and stream the answer back.

    :param base: ``http://host:port``.
    :param body: the request's body when it has been read already.
    :returns: 502 when the target cannot be reached; an answer that breaks off is broken off here too.
    """
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
    data = body if body is not None else await request.read()
    timeout = aiohttp.ClientTimeout(total=None, connect=5)
    try:
        answer = await http.request(
            request.method, base + request.path_qs, headers=headers, data=data, timeout=timeout, allow_redirects=False
        )
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return web.Response(status=502, text=f"502 Bad Gateway: {error}")
    async with answer:
        kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP]
        reply = web.StreamResponse(status=answer.status, headers=kept)
        await reply.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                await reply.write(chunk)
        except (aiohttp.ClientError, OSError):
            if request.transport is not None:
                request.transport.abort()
            raise
        await reply.write_eof()
        return reply
