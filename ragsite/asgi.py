"""The ASGI entry point."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
os.environ.setdefault("RAGSITE_DATABASE_POOL", "1")

from django.core.asgi import get_asgi_application

application = get_asgi_application()

from ragsite.boot import refuse_demo_data
from ragsite.health import load_model_in_background

refuse_demo_data()
load_model_in_background()
