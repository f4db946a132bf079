"""Structural schemas: a compact notation, validation, pruning and defaulting."""
