"""Weights from any source to S3 and FSx: verified, crash-safe, immutable."""
