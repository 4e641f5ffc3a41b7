"""OpenAI's protocol, below ``/v1``."""

from django.urls import path

from knowledge.api.openai.chat import ChatCompletionsView
from knowledge.api.openai.models import ModelsView, ModelView

urlpatterns = [
    path("chat/completions", ChatCompletionsView.as_view(), name="chat-completions"),
    path("models", ModelsView.as_view(), name="models"),
    path("models/<str:id>", ModelView.as_view(), name="model"),
]
