"""Blobs that are fetched once: shared while they are under way, and kept for later.

Within a session: `sharing` with `shared_fetch` and `spool`, and `manifests`. On disk: `disk`. Over
several hosts: `hosts`.
"""
