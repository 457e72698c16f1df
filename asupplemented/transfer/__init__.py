"""Copying an image to a destination, and fetching one ahead.

`plan` says what there is to carry; `copy` and `prefetch` carry it.
"""
