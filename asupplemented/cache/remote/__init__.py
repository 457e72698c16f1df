"""Caches over several hosts: object storage that they share, and leases for fetching.

`tiered` puts a cache of this host before object storage. `remote` is the storage behind breakers
(`asupplemented.aio.breaker`), with `uploads` in the background; `object_store` is its layout in a
bucket, and `object_blob` a stored blob as a candidate. `leases` decide which host fetches.
"""
