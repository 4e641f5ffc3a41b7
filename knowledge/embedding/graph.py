"""The bundled model as an ONNX graph of 8-bit integers, made from its weights with numpy alone.

Each linear layer multiplies 8-bit activations, scaled by the largest value of their own row (one token), with
7-bit weights, scaled by column. So a text's vector does not depend on the texts it is embedded with, and no
processor's instructions can overflow on the way: every machine makes the same vectors, to the last bits of a
float. Pooling and normalisation are in the graph (docs/decisions/0006-embedding-backend.md has the figures).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

HIDDEN, HEADS, LAYERS = 384, 12, 6
EPSILON = 1e-12  # of BERT's layer normalisation
WEIGHT_MAX = 63  # 7 bits: two products of 255 * 63 fit into the 16 bits in which AVX2 adds them
ACTIVATION_MAX = 127
ZERO_POINT = 128
_ORT = "com.microsoft"


def build_model(weights: Mapping[str, Array]) -> bytes:
    """The serialised graph.

    Its inputs are ``input_ids`` and ``attention_mask``, int64 of shape (texts, tokens); its output is ``vectors``,
    float32 of shape (texts, 384), of length 1.

    Args:
        weights: the tensors of BERT by their names in model.safetensors, without a prefix.
    """
    return _Builder(weights).build()


class _Builder:
    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def build(self) -> bytes:
        self._constant("step", np.float32(1 / ACTIVATION_MAX))
        self._constant("zero_point", np.uint8(ZERO_POINT))
        self._constant("tiny", np.float32(1e-12))
        self._constant("last", np.array([-1]))
        mask = self._node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        hidden = self._embeddings()
        bias = self._mask_bias(mask)
        for layer in range(LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden, bias)
        self._pool(hidden, mask)
        shape = ["texts", "tokens"]
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, shape)
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", HIDDEN])],
            list(self._constants.values()),
        )
        versions = [helper.make_opsetid("", 20), helper.make_opsetid(_ORT, 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=10)
        return bytes(model.SerializeToString())

    def _constant(self, name: str, value: Any) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(
                np.ascontiguousarray(value).reshape(np.shape(value)), name
            )
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _nodes_of(self, op: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        names = [f"{op}.{len(self._nodes)}.{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names

    def _node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        return self._nodes_of(op, inputs, 1, **attributes)[0]

    def _embeddings(self) -> str:
        """Words, as 8-bit rows with a scale each (47 MB would be 12), plus positions, normalised."""
        table = self._weights["embeddings.word_embeddings.weight"]
        scales = np.abs(table).max(axis=1, keepdims=True) / 127
        rows = self._constant("words", np.round(table / np.maximum(scales, 1e-12)).astype(np.int8))
        words = self._node("Cast", [self._node("Gather", [rows, "input_ids"])], to=TensorProto.FLOAT)
        scale = self._node("Gather", [self._constant("words.scale", scales.astype(np.float32)), "input_ids"])
        positions = (
            self._weights["embeddings.position_embeddings.weight"]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        length = self._node("Shape", ["input_ids"], start=1, end=2)
        zero = self._constant("zero", np.array([0]))
        position = self._node("Slice", [self._constant("positions", positions), zero, length, zero])
        total = self._node("Add", [self._node("Mul", [words, scale]), position])
        norm = [self._weight(f"embeddings.LayerNorm.{part}") for part in ("weight", "bias")]
        return self._node("LayerNormalization", [total, *norm], axis=-1, epsilon=EPSILON)

    def _mask_bias(self, mask: str) -> str:
        """What is added to attention scores, of shape (texts, 1, 1, tokens): 0 for tokens, far below for padding."""
        one = self._constant("one", np.float32(1))
        bias = self._node("Mul", [self._node("Sub", [mask, one]), self._constant("far", np.float32(1e9))])
        return self._node("Unsqueeze", [bias, self._constant("middle", np.array([1, 2]))])

    def _layer(self, prefix: str, hidden: str, bias: str) -> str:
        attended = self._attention(prefix + "attention.self.", hidden, bias)
        out = self._linear(prefix + "attention.output.dense", attended)
        hidden = self._add_and_normalise(prefix + "attention.output.", out, hidden)
        inner = self._linear(prefix + "intermediate.dense", hidden)
        inner = self._node("BiasGelu", [inner, self._weight(prefix + "intermediate.dense.bias")], domain=_ORT)
        out = self._linear(prefix + "output.dense", inner)
        return self._add_and_normalise(prefix + "output.", out, hidden)

    def _attention(self, prefix: str, hidden: str, bias: str) -> str:
        """Vaswani et al. 2017, section 3.2; the three projections are one multiplication."""
        size = HIDDEN // HEADS
        names = [prefix + part for part in ("query", "key", "value")]
        matrices = [self._weights[name + ".weight"].T for name in names]
        biases = [self._weights[name + ".bias"] for name in names]
        scale = np.float32(size**-0.5)
        matrices[0], biases[0] = matrices[0] * scale, biases[0] * scale
        three = self._multiply(prefix + "qkv", hidden, np.concatenate(matrices, axis=1))
        three = self._node("Add", [three, self._constant(prefix + "qkv.bias", np.concatenate(biases))])
        split = self._node("Reshape", [three, self._constant("by_head", np.array([0, 0, 3, HEADS, size]))])
        split = self._node("Transpose", [split], perm=[2, 0, 3, 1, 4])
        parts = self._nodes_of("Split", [split], 3, axis=0, num_outputs=3)
        query, key, value = (self._node("Squeeze", [part, "zero"]) for part in parts)
        scores = self._node("FusedMatMul", [query, key], domain=_ORT, transB=1)
        shares = self._node("Softmax", [self._node("Add", [scores, bias])], axis=-1)
        mixed = self._node("Transpose", [self._node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
        return self._node("Reshape", [mixed, self._constant("whole", np.array([0, 0, HIDDEN]))])

    def _linear(self, name: str, hidden: str) -> str:
        """Without its bias, which the node that follows adds."""
        return self._multiply(name, hidden, self._weights[name + ".weight"].T)

    def _multiply(self, name: str, hidden: str, matrix: Array) -> str:
        scales = np.abs(matrix).max(axis=0) / WEIGHT_MAX
        quantised = np.round(matrix / scales).astype(np.int8)
        largest = self._node("ReduceMax", [self._node("Abs", [hidden]), "last"], keepdims=1)
        largest = self._node("Max", [largest, "tiny"])
        rows = self._node("QuantizeLinear", [self._node("Div", [hidden, largest]), "step", "zero_point"])
        product = self._node(
            "MatMulIntegerToFloat",
            [
                rows,
                self._constant(name + ".quantised", quantised),
                "step",
                self._constant(name + ".scales", scales.astype(np.float32)),
                "zero_point",
            ],
            domain=_ORT,
        )
        return self._node("Mul", [product, largest])

    def _add_and_normalise(self, prefix: str, out: str, hidden: str) -> str:
        norm = [self._weight(f"{prefix}LayerNorm.{part}") for part in ("weight", "bias")]
        return self._node(
            "SkipLayerNormalization",
            [out, hidden, *norm, self._weight(prefix + "dense.bias")],
            domain=_ORT,
            epsilon=EPSILON,
        )

    def _pool(self, hidden: str, mask: str) -> None:
        """The mean over a text's tokens; that it is a sum makes no difference to the direction."""
        row = self._constant("row", np.array([1]))
        total = self._node("MatMul", [self._node("Unsqueeze", [mask, row]), hidden])
        total = self._node("Squeeze", [total, row])
        self._nodes.append(helper.make_node("LpNormalization", [total], ["vectors"], axis=1, p=2))
