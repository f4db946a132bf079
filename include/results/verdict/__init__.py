"""Verdicts on runs: noise, suspicion, change points, false discoveries, confirmation, attribution.

The unit of every test is the run, never the request: requests of one run share its deployment, node and minute,
and testing them as if independent finds "changes" every night.
"""
