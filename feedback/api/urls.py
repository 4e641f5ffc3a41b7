"""The feedback's part of ``/api/v1``."""

from django.urls import path

from feedback.api.views import FeedbacksView, FeedbackView

urlpatterns = [
    path("feedback", FeedbacksView.as_view(), name="feedback-list"),
    path("feedback/<uuid:id>", FeedbackView.as_view(), name="feedback"),
]
