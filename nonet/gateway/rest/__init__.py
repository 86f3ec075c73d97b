"""The HTTP routes: the task API, the Open Inference Protocol and the pages for people."""

from nonet.gateway.rest.app import create_app

__all__ = ["create_app"]
