"""The worker's door: thin Celery tasks that call one service each."""
