"""The cache on disk: a plain OCI layout that processes share.

Read it in this order. `layout_cache` is the cache, asynchronous. `store` adds and evicts, under the
lock of `quota`; `paths` says where files are. `graph` and `index_json` list complete images.
`lookup` finds blobs and decides whether their files can be trusted. `fetch_lock` and `following`
let one process fetch while the others read along.
"""
