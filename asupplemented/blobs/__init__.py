"""Streams of blobs: fetched from their sources, verified, and handed out.

From the inside out: how bytes are hashed (`hashing`), how files are read (`blob_file`,
`read_ahead`), one source that was asked (`attempts`), which source is asked (`candidates`) and
which ones failed lately (`health`), what to do when a source fails (`failover` decides with what
`history` records, `failover_reader` acts), and what callers see (`stream`).
"""
