"""The knowledge's pages."""

from django.urls import path

from knowledge.views.ask import answer_fragment, ask, conversation_page
from knowledge.views.document import document_page
from knowledge.views.role_preview import role_preview
from knowledge.views.upload import upload_page

urlpatterns = [
    path("", ask, name="ask"),
    path("c/<uuid:id>/", conversation_page, name="conversation-page"),
    path("answers/<uuid:id>/", answer_fragment, name="answer-fragment"),
    path("upload/", upload_page, name="upload"),
    path("documents/<uuid:id>/", document_page, name="document-page"),
    path("roles/<uuid:id>/preview/", role_preview, name="role-preview"),
]
