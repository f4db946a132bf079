"""Connections to the clusters and to AWS."""
