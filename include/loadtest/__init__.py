"""The load engine: workloads, arrivals, client, recorder, statistics."""
