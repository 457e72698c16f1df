"""Caches over several hosts: object storage that they share, and a lease on who fetches.

`leases` and `redis_lease` say who fetches; `object_store`, with `object_requests`, `object_body`
and `object_upload`, is the storage; `tiered` puts a cache of this host in front of it, with
`remote_tier`, `uploads` and `tiered_spool`. A server that failed is not asked for a while
(`asupplemented.aio.breaker`).
"""
