"""The HTTP service: a collection answers over HTTP and takes new labels. No torch here."""

from service.app import create_app
from service.settings import Settings

__all__ = ["Settings", "create_app"]
