"""Catalogs: names to open groups of references, for a registry that serves them.

`names` decides which group a name stands for, `view` opens its images, `images` keeps them open and
shares them, `upstreams` remembers what failed, `budget` spends the requests that registries allow,
and `catalog` puts them together.
"""

from __future__ import annotations

from asupplemented.catalog.budget import LocalValues, RequestBudget, SharedValues
from asupplemented.catalog.catalog import Catalog, CatalogStats
from asupplemented.catalog.images import CatalogEntry, CatalogImage
from asupplemented.catalog.upstreams import FailingUpstream

__all__ = (
    "Catalog",
    "CatalogEntry",
    "CatalogImage",
    "CatalogStats",
    "FailingUpstream",
    "LocalValues",
    "RequestBudget",
    "SharedValues",
)
