"""This library as a hub: Civitai's v1 API over what is here, read only.

with running(create_app(RegistryCatalog(registry))) as url: …     # http://127.0.0.1:43817
"""

from __future__ import annotations

from registry.http.app import create_app
from registry.http.catalog import Catalog, Holding, RegistryCatalog
from registry.http.query import Card
from registry.http.server import running, serve

__all__ = ["Card", "Catalog", "Holding", "RegistryCatalog", "create_app", "running", "serve"]
