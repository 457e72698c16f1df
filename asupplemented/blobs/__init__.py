"""Streams of blobs: fetched from whoever serves them, verified, and handed out.

From the inside out: how bytes are hashed (`hashing`), how files are read (`blob_file`,
`read_ahead`), one source that is asked (`attempts`, with `patience`), who is asked (`candidates`)
and who is fit to be (`health`), one blob from one source after another (`relay`, with `service`),
and what readers see (`verified`).
"""
