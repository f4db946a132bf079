"""Records of runs: schema, store, cost, verdicts, reports, exchange."""
