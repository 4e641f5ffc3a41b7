"""A BERT small enough to be made in a test."""

from collections.abc import Sequence
from pathlib import Path


def save_tiny_bert(folder: Path, *, words: Sequence[str], labels: int = 0) -> None:
    """Saves one of 2 layers and 16 dimensions with random weights, the same each time, and its tokenizer.

    Args:
        labels: of a head that judges a sequence; 0: no head.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    file = folder / "vocab.txt"
    file.write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(file), vocab_file=str(file)).save_pretrained(folder)
    torch.manual_seed(1)
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    if labels:
        shape.num_labels = labels
        BertForSequenceClassification(shape).save_pretrained(folder)
    else:
        BertModel(shape).save_pretrained(folder)
