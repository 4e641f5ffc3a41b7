"""The ASGI entry point."""

import gc
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
os.environ.setdefault("RAGSITE_DATABASE_POOL", "1")

import django

django.setup(set_prefix=False)

from django import db
from django.core.signals import request_started
from django.urls import get_resolver

from ragsite.boot import refuse_demo_data
from ragsite.core.config import config
from ragsite.edge import build_application
from ragsite.health import load_model_in_background

# A request has a thread of its own, if any: there are no connections in it yet to look after.
request_started.disconnect(db.close_old_connections)
request_started.disconnect(db.reset_queries)

application = build_application(fast_hits=config().fast_hits)
# The event loop gives the lock away with every call to the kernel; a thread that computes keeps it for this long each time.
sys.setswitchinterval(0.001)  # seconds; by default five times as many

refuse_demo_data()
get_resolver().url_patterns  # noqa: B018  the first request need not import every view, in rivalry with the model
load_model_in_background()
# All that is there by now stays. Each full collection would look through it again, and hold every request up for a fifth of
# a second meanwhile.
gc.collect()
gc.freeze()
