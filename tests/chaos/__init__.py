"""The fault matrix: kill, partition and refuse at every step between intent and absence, then count what is left."""
