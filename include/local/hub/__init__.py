"""A Hugging Face Hub for this machine: what its client asks of the real one, over HTTP, with scripted faults."""
