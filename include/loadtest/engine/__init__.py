"""The load generator: one event loop on one core, nothing imported that a first request does not need."""
