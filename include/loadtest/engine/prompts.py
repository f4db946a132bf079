"""What is asked: a stream of requests drawn from the workload's prompt kinds, reproducible by seed and salt."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from include.loadtest.engine.bodies import Message, Shape, tool_definitions
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.texts import Corpus
from include.loadtest.job import Job, Prompts

READY_BYTES = 8 * 1024 * 1024
READY_REQUESTS = 8192
TOOL_WORDS = 5


class Ask:
    """One request to send.

    :param input_tokens: tokens of content asked for; -1: unknown (dataset).
    """

    __slots__ = (
        "body", "conversation", "group", "index", "input_tokens", "keep_text", "output_tokens", "prompt", "session",
        "turn",
    )  # fmt: skip

    def __init__(
        self,
        body: bytes,
        *,
        index: int = -1,
        input_tokens: int = -1,
        output_tokens: int = 0,
        prompt: int = 0,
        session: int = -1,
        turn: int = 0,
        group: int = -1,
        keep_text: bool = False,
        conversation: Conversation | None = None,
    ) -> None:
        self.body = body
        self.index = index
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.prompt = prompt
        self.session = session
        self.turn = turn
        self.group = group
        self.keep_text = keep_text
        self.conversation = conversation


class Conversation:
    """A session of several turns: each turn sends all that was said, the server's own answers included."""

    __slots__ = ("_followups", "group", "messages", "prompt", "session", "tokens", "turn")

    def __init__(
        self, session: int, prompt: int, group: int, messages: list[Message], followups: list[tuple[Message, int]]
    ) -> None:
        self.session = session
        self.prompt = prompt
        self.group = group
        self.messages = messages
        self.turn = 0
        self.tokens = 0
        self._followups = deque(followups)

    @property
    def more(self) -> bool:
        """True when a turn is left."""
        return bool(self._followups)

    def advance(self, exchange: Exchange) -> None:
        """Add the answer and the next message."""
        message, tokens = self._followups.popleft()
        answer: Message = {"role": "assistant", "content": exchange.text}
        if message["role"] == "tool":
            call = {"id": f"call{self.turn:05d}", "type": "function"}
            answer["tool_calls"] = [call | {"function": {"name": "tool", "arguments": "{}"}}]
            message = message | {"tool_call_id": call["id"]}
        self.messages += [answer, message]
        self.turn += 1
        self.tokens += tokens + max(exchange.output_tokens, len(exchange.marks))


class Entry(msgspec.Struct):
    """One request of a data set, as the parent wrote it down; several user messages make a session."""

    messages: list[dict[str, Any]]
    followups: list[dict[str, Any]] = []
    output_tokens: int = 0


class TraceEntry(msgspec.Struct):
    """One arrival of a recorded trace; lengths in tokens, ``blocks`` name shared pieces of the prompt in order."""

    at_s: float
    input_tokens: int = 0
    output_tokens: int = 0
    blocks: list[int] = []
    block_tokens: int = 512


class Source:
    """Renders the requests of a job, some ahead of time.

    Request *i* is a function of seed, salt and *i* alone: any split over workers asks the same.
    """

    def __init__(
        self,
        job: Job,
        shape: Shape,
        corpus: Corpus,
        datasets: dict[int, list[Entry]],
        trace: Sequence[TraceEntry] = (),
    ) -> None:
        self._job = job
        self._shape = shape
        self._corpus = corpus
        self._datasets = datasets
        self._trace = trace
        self._next = job.worker
        self._ready: deque[Ask] = deque()
        self._tools: dict[tuple[int, str], list[Message]] = {}

    def prepare(self, requests: int | None) -> None:
        """Render ahead: all of ``requests`` if they are few and small, else as many as fit in 8 MiB."""
        size = 0
        limit = READY_REQUESTS if requests is None else min(requests, READY_REQUESTS)
        while len(self._ready) < limit and size < READY_BYTES:
            ask = self._render_next()
            size += len(ask.body)
            self._ready.append(ask)

    def take(self) -> Ask:
        """Return the next request."""
        return self._ready.popleft() if self._ready else self._render_next()

    def followup(self, exchange: Exchange) -> Ask | None:
        """Return the next turn of the exchange's session, ``None`` when it is over or has failed."""
        conversation = exchange.ask.conversation
        if conversation is None or not exchange.ok or not conversation.more:
            return None
        conversation.advance(exchange)
        return self._ask(conversation, index=exchange.ask.index)

    def think_time_s(self, ask: Ask) -> float:
        """Pause after this request's answer, in seconds."""
        return self._job.prompts[ask.prompt].think_time_s

    def warmup(self, index: int) -> Ask:
        """Return a request that shares nothing with the measured ones."""
        return self._render(index, f"warm-up-{self._job.worker}")

    def pool(self) -> list[Ask]:
        """Return the fixed set of the warm arm, each to be sent once before t0."""
        return [self._render(place, "measure") for place in range(self._job.warm_pool)]

    def _render_next(self) -> Ask:
        index = self._next
        self._next += self._job.workers
        place = index % self._job.warm_pool if self._job.arm == "warm" else index
        ask = self._render(place, "measure")
        ask.index = index
        if ask.session >= 0:
            ask.session = index
        return ask

    def _render(self, place: int, scope: str) -> Ask:
        if self._trace:
            return self._from_trace(self._trace[place % len(self._trace)], place, scope)
        rng = Draws(f"{self._job.seed}|{scope}|{place}")
        number = self._choose(rng)
        kind = self._job.prompts[number]
        if kind.kind == "dataset":
            return self._from_dataset(number, place, scope)
        key = f"{self._job.salt}|{scope}|{place}"
        group = -1 if not kind.prefix_tokens else rng.below(kind.prefix_groups)
        tokens = draw(rng, kind.input_tokens, kind.input_tokens_stddev)
        messages: list[Message] = []
        if group >= 0:
            prefix = self._corpus.text(kind.prefix_tokens, f"{self._shared(scope)}|prefix|{number}|{group}")
            messages.append({"role": "system", "content": prefix})
        messages.append({"role": "user", "content": self._corpus.text(tokens, key)})
        conversation = Conversation(place, number, group, messages, self._followups(kind, key))
        conversation.tokens = tokens + (kind.prefix_tokens if group >= 0 else 0)
        return self._ask(conversation, index=place, scope=scope)

    def _shared(self, scope: str) -> str:
        """Begin the key of a text that requests share: those sent before t0 share none with the measured ones."""
        return self._job.salt if scope == "measure" else f"{self._job.salt}|{scope}"

    def _tools_for(self, count: int, scope: str) -> list[Message]:
        """Return function definitions of this run: servers put them in front of all else, so they too must be new."""
        known = (count, scope)
        if known not in self._tools:
            words = self._corpus.text(TOOL_WORDS + 1, f"{self._shared(scope)}|tools").split()
            self._tools[known] = tool_definitions(count, words[1:])
        return self._tools[known]

    def _followups(self, kind: Prompts, key: str) -> list[tuple[Message, int]]:
        tokens = kind.followup_tokens or kind.input_tokens
        return [
            ({"role": kind.followup_role, "content": self._corpus.text(tokens, f"{key}|{turn}")}, tokens)
            for turn in range(1, kind.turns)
        ]

    def _ask(self, conversation: Conversation, *, index: int, scope: str = "measure") -> Ask:
        kind = self._job.prompts[conversation.prompt]
        rng = Draws(f"{self._job.seed}|output|{conversation.session}|{conversation.turn}")
        output = draw(rng, kind.output_tokens, kind.output_tokens_stddev)
        tools = self._tools_for(kind.tools, scope) if kind.tools else ()
        body = self._shape.body(conversation.messages, output, exact_output=True, tools=tools)
        several = kind.turns > 1
        return Ask(
            body,
            index=index,
            input_tokens=conversation.tokens,
            output_tokens=output,
            prompt=conversation.prompt,
            session=conversation.session if several else -1,
            turn=conversation.turn,
            group=conversation.group,
            keep_text=several,
            conversation=conversation if several else None,
        )

    def _from_dataset(self, number: int, place: int, scope: str) -> Ask:
        entries = self._datasets[number]
        entry = entries[place % len(entries)]
        salt = f"[{self._job.salt}-{scope[0]}{place}] "
        messages = [dict(message) for message in entry.messages]
        if self._job.arm == "cold" or scope != "measure":
            messages[0]["content"] = salt + str(messages[0].get("content") or "")
        output = entry.output_tokens
        body = self._shape.body(messages, output, exact_output=output > 0)
        conversation = None
        if entry.followups:
            conversation = Conversation(place, number, -1, messages, [(m, 0) for m in entry.followups])
        return Ask(
            body,
            index=place,
            output_tokens=output,
            prompt=number,
            session=place if conversation else -1,
            keep_text=conversation is not None,
            conversation=conversation,
        )

    def _from_trace(self, entry: TraceEntry, place: int, scope: str) -> Ask:
        salt, size = self._job.salt, entry.block_tokens
        shared = self._shared(scope)
        pieces: list[str] = []
        left = max(1, entry.input_tokens)
        for block in entry.blocks:
            if left > 0:
                pieces.append(self._corpus.text(min(size, left), f"{shared}|block|{block}"))
                left -= size
        if left > 0:
            pieces.append(self._corpus.text(left, f"{salt}|{scope}|{place}"))
        messages = [{"role": "user", "content": " ".join(pieces)}]
        body = self._shape.body(messages, entry.output_tokens, exact_output=True)
        tokens = max(1, entry.input_tokens)
        return Ask(body, index=place, input_tokens=tokens, output_tokens=entry.output_tokens)

    def _choose(self, rng: Draws) -> int:
        kinds = self._job.prompts
        return 0 if len(kinds) == 1 else rng.source.choices(range(len(kinds)), [kind.weight for kind in kinds])[0]


class Draws:
    """Random draws of one request, seeded by a text; making the generator costs 5 us, so only once one is needed."""

    __slots__ = ("_seed", "_source")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._source: random.Random | None = None

    @property
    def source(self) -> random.Random:
        """The generator."""
        if self._source is None:
            self._source = random.Random(self._seed)
        return self._source

    def below(self, limit: int) -> int:
        """Return a number from 0 to ``limit`` - 1."""
        return 0 if limit == 1 else self.source.randrange(limit)


def draw(rng: Draws, mean: int, stddev: float) -> int:
    """Return a length: normal, rounded, between 1 and four times the mean."""
    if stddev <= 0:
        return mean
    return min(max(1, round(rng.source.gauss(mean, stddev))), 4 * mean)
