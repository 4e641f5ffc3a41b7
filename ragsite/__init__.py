"""ragsite: answers engineers' questions from their own team's documents, with citations."""

__version__ = "0.1.0"
