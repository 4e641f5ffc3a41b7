"""The ASGI entry point."""

import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
os.environ.setdefault("RAGSITE_DATABASE_POOL", "1")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()

from django.urls import get_resolver

from knowledge.hits.asgi import FastHits
from ragsite.boot import refuse_demo_data
from ragsite.core.config import config
from ragsite.health import load_model_in_background

application = FastHits(django_application, enabled=config().fast_hits)
# The event loop gives the lock away with every call to the kernel; a thread that computes keeps it for this long each time.
sys.setswitchinterval(0.0005)  # seconds; by default ten times as many

refuse_demo_data()
get_resolver().url_patterns  # noqa: B018  the first request need not import every view, in rivalry with the model
load_model_in_background()
