"""The cache on disk: a plain OCI layout that processes share.

Blocking, under locks: `places`, `records`, `ledger`, `eviction`, `links`, `tops`, and `stock`,
which alone adds and evicts. Finding what is there: `finding`. Fetching once for many processes:
`leads`, `following`, `cached_spool`. The face: `layout_cache`, with `trouble`.
"""
