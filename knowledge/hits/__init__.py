"""Exact cache hits of ``POST /api/v1/query``, answered before Django; see docs/decisions/0011-hits-before-django.md.

``asgi`` takes the request, ``ticket`` gathers what Django finds out about one, ``memory`` keeps it for a minute, ``lookup``
asks Redis whether it holds still, ``shape`` writes the response, and ``records`` brings the hits into the database.
"""
