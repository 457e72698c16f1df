"""Copy an image to a destination, or fetch it into a cache ahead of its use.

`plan` reads what there is to transfer; `copy` writes it, `prefetch` reads it through the cache.
"""
