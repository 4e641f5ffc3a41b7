"""The knowledge's part of ``/api/v1``."""

from django.urls import path

from knowledge.api.collections import (
    CacheStatsView,
    CacheView,
    CacheWarmView,
    CollectionsView,
    CollectionView,
    IngestView,
    ReindexView,
    SourceCheckView,
    SourceExcludedView,
    SourcesView,
    SourceSyncView,
    SourceView,
    TasksView,
    TaskView,
)
from knowledge.api.conversations import ConversationShareView, ConversationsView, ConversationView
from knowledge.api.documents import (
    DocumentContentView,
    DocumentOriginalView,
    DocumentRestoreView,
    DocumentsView,
    DocumentView,
)
from knowledge.api.hooks import HookSecretView, HookView
from knowledge.api.models import ModelSettingsView
from knowledge.api.query import (
    AnswerStreamView,
    AnswerView,
    QueryBatchView,
    QueryStreamView,
    QueryView,
    SearchView,
)

urlpatterns = [
    path("query", QueryView.as_view(), name="query"),
    path("query/stream", QueryStreamView.as_view(), name="query-stream"),
    path("query/batch", QueryBatchView.as_view(), name="query-batch"),
    path("model-settings", ModelSettingsView.as_view(), name="model-settings"),
    path("search", SearchView.as_view(), name="search"),
    path("answers/<uuid:id>", AnswerView.as_view(), name="answer"),
    path("answers/<uuid:id>/stream", AnswerStreamView.as_view(), name="answer-stream"),
    path("conversations", ConversationsView.as_view(), name="conversations"),
    path("conversations/<uuid:id>", ConversationView.as_view(), name="conversation"),
    path("conversations/<uuid:id>/share", ConversationShareView.as_view(), name="conversation-share"),
    path("collections", CollectionsView.as_view(), name="collection-list"),
    path("collections/<uuid:id>", CollectionView.as_view(), name="collection"),
    path("documents", DocumentsView.as_view(), name="document-list"),
    path("documents/<uuid:id>", DocumentView.as_view(), name="document"),
    path("documents/<uuid:id>/restore", DocumentRestoreView.as_view(), name="document-restore"),
    path("documents/<uuid:id>/content", DocumentContentView.as_view(), name="document-content"),
    path("documents/<uuid:id>/original", DocumentOriginalView.as_view(), name="document-original"),
    path("sources", SourcesView.as_view(), name="source-list"),
    path("sources/<uuid:id>", SourceView.as_view(), name="source"),
    path("sources/<uuid:id>/check", SourceCheckView.as_view(), name="source-check-now"),
    path("sources/<uuid:id>/sync", SourceSyncView.as_view(), name="source-sync"),
    path("sources/<uuid:id>/excluded", SourceExcludedView.as_view(), name="source-excluded"),
    path("sources/<uuid:id>/hook-secret", HookSecretView.as_view(), name="source-hook-secret"),
    path("hooks/<uuid:id>", HookView.as_view(), name="hook"),
    path("ingest", IngestView.as_view(), name="ingest"),
    path("reindex", ReindexView.as_view(), name="reindex"),
    path("tasks", TasksView.as_view(), name="tasks"),
    path("tasks/<uuid:id>", TaskView.as_view(), name="task"),
    path("cache/stats", CacheStatsView.as_view(), name="cache-stats"),
    path("cache/warm", CacheWarmView.as_view(), name="cache-warm"),
    path("cache", CacheView.as_view(), name="cache"),
]
