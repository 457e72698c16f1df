"""Blobs that are fetched once: shared while they are under way, and kept on disk for later."""
