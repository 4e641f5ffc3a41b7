"""The knowledge's pages."""

from django.urls import path

from knowledge.views.ask import answer_fragment, answer_text, ask, conversation_page
from knowledge.views.bulk import documents_bulk, documents_restore
from knowledge.views.collections import (
    collection_delete,
    collection_new,
    collection_page,
    collection_reindex,
    collections_page,
)
from knowledge.views.conversations import conversation_settings, history
from knowledge.views.document import document_page
from knowledge.views.document_manage import (
    document_chunks,
    document_delete,
    document_manage,
    document_reindex,
    document_replace,
    document_restore,
)
from knowledge.views.documents import documents_page
from knowledge.views.index import index_page, index_space
from knowledge.views.jobs import job_cancel, job_page, job_retry, jobs_page
from knowledge.views.role_preview import role_preview
from knowledge.views.source_form import source_check, source_edit, source_new
from knowledge.views.source_hook import source_hook, source_hook_delete
from knowledge.views.sources import (
    source_delete,
    source_page,
    source_pause,
    source_sync,
    source_take_again,
    source_try,
    sources_page,
)
from knowledge.views.upload import upload_page, upload_progress
from knowledge.views.usage import usage_questions
from knowledge.views.why import search_why

urlpatterns = [
    path("", ask, name="ask"),
    path("c/<uuid:id>/", conversation_page, name="conversation-page"),
    path("c/<uuid:id>/settings/", conversation_settings, name="conversation-settings"),
    path("history/", history, name="history"),
    path("answers/<uuid:id>/", answer_fragment, name="answer-fragment"),
    path("answers/<uuid:id>/text/", answer_text, name="answer-text"),
    path("documents/", documents_page, name="documents"),
    path("documents/bulk/", documents_bulk, name="documents-bulk"),
    path("documents/restore/", documents_restore, name="documents-restore"),
    path("upload/", upload_page, name="upload"),
    path("upload/progress/", upload_progress, name="upload-progress"),
    path("documents/<uuid:id>/", document_page, name="document-page"),
    path("documents/<uuid:id>/manage/", document_manage, name="document-manage"),
    path("documents/<uuid:id>/passages/", document_chunks, name="document-chunks"),
    path("documents/<uuid:id>/replace/", document_replace, name="document-replace"),
    path("documents/<uuid:id>/reindex/", document_reindex, name="document-reindex"),
    path("documents/<uuid:id>/delete/", document_delete, name="document-delete"),
    path("documents/<uuid:id>/restore/", document_restore, name="document-undelete"),
    path("collections/", collections_page, name="collections"),
    path("collections/new/", collection_new, name="collection-new"),
    path("collections/<uuid:id>/", collection_page, name="collection-page"),
    path("collections/<uuid:id>/reindex/", collection_reindex, name="collection-reindex"),
    path("collections/<uuid:id>/delete/", collection_delete, name="collection-delete"),
    path("sources/", sources_page, name="sources"),
    path("sources/new/", source_new, name="source-new"),
    path("sources/check/", source_check, name="source-check"),
    path("sources/<uuid:id>/", source_page, name="source-page"),
    path("sources/<uuid:id>/edit/", source_edit, name="source-edit"),
    path("sources/<uuid:id>/sync/", source_sync, name="source-sync-now"),
    path("sources/<uuid:id>/check/", source_try, name="source-try"),
    path("sources/<uuid:id>/take-again/", source_take_again, name="source-take-again"),
    path("sources/<uuid:id>/pause/", source_pause, name="source-pause"),
    path("sources/<uuid:id>/hook/", source_hook, name="source-hook"),
    path("sources/<uuid:id>/hook/delete/", source_hook_delete, name="source-hook-delete"),
    path("sources/<uuid:id>/delete/", source_delete, name="source-delete"),
    path("jobs/", jobs_page, name="jobs"),
    path("jobs/<uuid:id>/", job_page, name="job-page"),
    path("jobs/<uuid:id>/cancel/", job_cancel, name="job-cancel"),
    path("jobs/<uuid:id>/retry/", job_retry, name="job-retry"),
    path("roles/<uuid:id>/preview/", role_preview, name="role-preview"),
    path("search/why/", search_why, name="search-why"),
    path("index/", index_page, name="index"),
    path("index/spaces/", index_space, name="index-space"),
    path("usage/questions/", usage_questions, name="usage-questions"),
]
