"""LLMeter's runner over the OpenAI SDK. Arguments: url streams requests tokens."""

import asyncio
import json
import os
import sys

from llmeter.endpoints import OpenAICompletionStreamEndpoint
from llmeter.runner import Runner

url, streams, requests, tokens = sys.argv[1], *map(int, sys.argv[2:5])
os.environ.setdefault("OPENAI_API_KEY", "none")
endpoint = OpenAICompletionStreamEndpoint(model_id="reference", endpoint_name="r", base_url=url + "/v1", api_key="none")
payload = OpenAICompletionStreamEndpoint.create_payload("word " * 32, max_tokens=tokens)
runner = Runner(endpoint)
result = asyncio.run(
    runner.run(
        payload=payload, clients=streams, n_requests=max(1, requests // streams), disable_clients_progress_bar=True
    )
)
found = [r for r in result.responses if r.error is None]
print(
    json.dumps(
        {"ttft": [r.time_to_first_token for r in found], "gaps": [], "e2e": [r.time_to_last_token for r in found]}
    )
)
