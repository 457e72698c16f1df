"""Blobs that are fetched once: shared while they are being fetched, and kept for later.

Within a session: `sharing` with `shared_fetch` and `spool`, and `manifests`. On disk: `layout`.
Over several hosts: `remote`.
"""
