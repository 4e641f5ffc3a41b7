"""The feedback's part of ``/api/v1``."""

from django.urls import path

from feedback.api.requests import DocumentRequestsView, DocumentRequestView
from feedback.api.stats import StatsView
from feedback.api.views import FeedbacksView, FeedbackView

urlpatterns = [
    path("stats", StatsView.as_view(), name="stats"),
    path("feedback", FeedbacksView.as_view(), name="feedback-list"),
    path("feedback/<uuid:id>", FeedbackView.as_view(), name="feedback"),
    path("document-requests", DocumentRequestsView.as_view(), name="document-request-list"),
    path("document-requests/<uuid:id>", DocumentRequestView.as_view(), name="document-request-change"),
]
