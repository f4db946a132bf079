"""The stages of a run as task groups, the same in every Dag."""
