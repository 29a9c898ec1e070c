"""Plugins that speak to hypervisors: one package a platform, no Django, no Celery, no broker."""
