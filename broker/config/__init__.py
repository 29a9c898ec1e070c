"""Wires everything together; imported by no room of the house."""

from broker.config.celery import app as celery_app

__all__ = ["celery_app"]
