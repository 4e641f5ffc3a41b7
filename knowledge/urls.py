"""The knowledge's pages."""

from django.urls import path

from knowledge.views import answer_fragment, ask, conversation_page, document_page

urlpatterns = [
    path("", ask, name="ask"),
    path("c/<uuid:id>/", conversation_page, name="conversation-page"),
    path("answers/<uuid:id>/", answer_fragment, name="answer-fragment"),
    path("documents/<uuid:id>/", document_page, name="document-page"),
]
