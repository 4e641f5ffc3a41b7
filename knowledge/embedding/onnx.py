"""Embedding in process with the bundled model in 8-bit integers: onnxruntime and tokenizers, no torch."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from knowledge.embedding.base import Vectors, clean_text
from knowledge.embedding.bundled import BUNDLED
from knowledge.embedding.prepared import MODEL, TOKENIZER

NAME = f"{BUNDLED}/onnx-int8"
WINDOW = 256  # tokens, special ones included: what the model was trained with


class OnnxEmbedder:
    """One session in this process. Safe to call from several threads.

    Each text is a run of its own in one thread, and several texts are embedded side by side: one text's rows stay in
    a core's cache, nothing is padded, and no thread waits for another at every layer.

    Args:
        folder: as ``prepared.ready_model`` gives it.
        threads: texts embedded at the same time in one call.
    """

    name = NAME

    def __init__(self, folder: Path, *, threads: int) -> None:
        # tokenizers would otherwise start threads of its own, which do not survive the fork of Celery's pool.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # The arena hands out memory that another core has in its cache: a seventh of the time of texts side by side.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            folder / MODEL, options, providers=["CPUExecutionProvider"]
        )
        self._threads = threads
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
        tokens = [
            each.ids for each in self._tokenizer.encode_batch_fast([clean_text(text) for text in texts])
        ]

        def run(place: int) -> None:
            vectors[place] = self._session.run(["vectors"], {"input_ids": np.array([tokens[place]])})[0][0]

        if len(texts) < 2 or self._threads < 2:
            for place in range(len(texts)):
                run(place)
            return vectors
        longest_first = sorted(range(len(texts)), key=lambda place: -len(tokens[place]))
        # Threads of this call alone, since a pool would not survive the fork of Celery's workers.
        with ThreadPoolExecutor(min(self._threads, len(texts)), thread_name_prefix="embed-text") as pool:
            list(pool.map(run, longest_first))
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed(texts)

    def count_tokens(self, text: str) -> int:
        return len(self._counter.encode(clean_text(text), add_special_tokens=False).ids)
