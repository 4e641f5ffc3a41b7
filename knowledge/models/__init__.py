"""What is known (collections, sources, documents, chunks), the jobs that index it, what was answered from it,
and how well it is found."""

from knowledge.models.answers import Answer, Conversation, ConversationShare
from knowledge.models.documents import Chunk, Collection, Corpus, Document, Source
from knowledge.models.evaluation import EvaluationCase, EvaluationRun, EvaluationSet
from knowledge.models.gateway import ModelSettings
from knowledge.models.jobs import Job
from knowledge.models.prices import Price
from knowledge.models.upkeep import DeadLetter, ExpiredItem, IndexDay
from knowledge.models.vectors import Embedding, EmbeddingSpace, TagSet

__all__ = [
    "Answer",
    "Chunk",
    "Collection",
    "Conversation",
    "ConversationShare",
    "Corpus",
    "DeadLetter",
    "Document",
    "Embedding",
    "EmbeddingSpace",
    "EvaluationCase",
    "EvaluationRun",
    "EvaluationSet",
    "ExpiredItem",
    "IndexDay",
    "Job",
    "ModelSettings",
    "Price",
    "Source",
    "TagSet",
]
