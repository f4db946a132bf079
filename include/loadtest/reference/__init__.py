"""A server of exactly known timing: the truth that load clients are measured against."""
