"""What to run: models, clusters, workloads, the nightly matrix, prices, and their loader."""
