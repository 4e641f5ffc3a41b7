"""The feedback's pages."""

from django.urls import path

from feedback.views import answer_document_request, document_requests, rate, request_for_answer

urlpatterns = [
    path("answers/<uuid:id>/rating/", rate, name="rate-answer"),
    path("answers/<uuid:id>/request/", request_for_answer, name="request-document"),
    path("requests/", document_requests, name="document-requests"),
    path("requests/<uuid:id>/", answer_document_request, name="document-request"),
]
