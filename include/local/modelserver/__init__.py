"""A model container for the local HyperPod: real llama.cpp behind SageMaker's and OpenAI's HTTP contracts.

Two processes: the front (aiohttp; HTTP contracts, counters) and the engine (llama.cpp), because llama.cpp holds
Python's lock while it loads and ``/ping`` must answer 503 meanwhile. Each ends when the other does.
It does not imitate vLLM: vLLM's arguments that have no meaning here are refused, not ignored.
"""
