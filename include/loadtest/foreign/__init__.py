"""Other people's load tools: how each is called, and how its output becomes records of ours.

They run in an image or environment of their own, never in a worker's. Records of different tools are told apart by
``tool`` in the file's metadata and are never compared with each other: their definitions differ.
"""
