"""The endpoint lifecycle: render, create, observe, diagnose, validate, delete, prove absence."""
