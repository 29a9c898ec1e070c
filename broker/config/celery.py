"""The Celery app. Messages are hints, rows are the truth: no results, no late acks, no countdowns; ticks expire."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.config.settings")

app = Celery("deskyard")
app.set_default()
"""Other threads (web requests, pumps) find it as `celery.current_app`."""
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    task_serializer="json",
    accept_content=["json"],
    task_acks_late=False,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    task_default_queue="deskyard",
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
        # Of whoever queues a hint: kombu would otherwise sleep 0, 2 and 4 s between tries, and a person waits for the
        # page. Workers that lost Redis go on trying by `broker_connection_max_retries`.
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
    },
    timezone="UTC",
    imports=[f"broker.tasks.{name}" for name in ("clock", "heartbeat", "mails", "movers", "pumps")],
    task_routes={"deskyard.move": {"queue": "movers"}},
    beat_max_loop_interval=1,
    beat_schedule={
        "tick": {"task": "deskyard.tick", "schedule": 1.0, "options": {"expires": 2}},
        "housekeeping": {"task": "deskyard.housekeeping", "schedule": 60.0, "options": {"expires": 60}},
    },
)
