"""The Celery application."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
# Indexing writes whole documents in one statement: the web's 5 seconds are not for the worker.
os.environ.setdefault("RAGSITE_DATABASE_TIMEOUT_SECONDS", "120")

from celery import Celery

app = Celery("ragsite")
app.set_default()  # the current app is one of its thread; requests come in others
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["tenants", "knowledge", "feedback"])
