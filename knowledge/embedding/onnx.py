"""Embedding in process with the bundled model in 8-bit integers: onnxruntime and tokenizers, no torch."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from knowledge.embedding.base import Vectors, clean_text
from knowledge.embedding.bundled import BUNDLED
from knowledge.embedding.prepared import MODEL, TOKENIZER

NAME = f"{BUNDLED}/onnx-int8"
WINDOW = 256  # tokens, special ones included: what the model was trained with
# Tokens in one run, padding included. More gain nothing on a processor and cost memory for the attention.
BATCH_TOKENS = 1024


class OnnxEmbedder:
    """One session in this process. Safe to call from several threads.

    Args:
        folder: as ``prepared.ready_model`` gives it.
        threads: of one run.
    """

    name = NAME

    def __init__(self, folder: Path, *, threads: int) -> None:
        # tokenizers would otherwise start threads of its own, which do not survive the fork of Celery's pool.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Waiting threads sleep: the cores are needed for everything else that a question costs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            folder / MODEL, options, providers=["CPUExecutionProvider"]
        )
        self.dimensions: int = self._session.get_outputs()[0].shape[1]
        # Two, since whether a tokenizer cuts is a state that threads would share.
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(WINDOW)
        self._counter = Tokenizer.from_file(str(folder / TOKENIZER))
        self._counter.no_padding()
        self._counter.no_truncation()

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return vectors
        encoded = [
            each.ids for each in self._tokenizer.encode_batch_fast([clean_text(text) for text in texts])
        ]
        for places in _batches([len(ids) for ids in encoded]):
            ids = np.zeros((len(places), len(encoded[places[0]])), dtype=np.int64)
            mask = np.zeros_like(ids)
            for row, place in enumerate(places):
                tokens = encoded[place]
                ids[row, : len(tokens)] = tokens
                mask[row, : len(tokens)] = 1
            vectors[places] = self._session.run(["vectors"], {"input_ids": ids, "attention_mask": mask})[0]
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed(texts)

    def count_tokens(self, text: str) -> int:
        return len(self._counter.encode(clean_text(text), add_special_tokens=False).ids)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of texts that are embedded together, the longest first, so that little is padded."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    begin = 0
    while begin < len(order):
        count = max(1, BATCH_TOKENS // lengths[order[begin]])
        yield order[begin : begin + count]
        begin += count
