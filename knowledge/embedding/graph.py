"""The bundled model as an ONNX graph of 8-bit integers, made from its weights with numpy alone.

Each linear layer multiplies 8-bit activations, scaled by the largest value of their own row (one token), with
7-bit weights, scaled by column; behind GELU, which is hardly ever negative, 7 bits with 8. No processor's
instructions can overflow on the way: every machine makes the same vectors, to the last bits of a float. Pooling and
normalisation are in the graph (docs/decisions/0006-embedding-backend.md has the figures).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]

HIDDEN, HEADS, LAYERS = 384, 12, 6
EPSILON = 1e-12  # of BERT's layer normalisation
_ORT = "com.microsoft"


@dataclass(frozen=True)
class Levels:
    """How finely one layer's inputs and weights are cut.

    Attributes:
        weight: the largest weight, and the least without its sign.
        zero: the level of 0 among the inputs.
        above: levels above it.

    Raises:
        ValueError: two products do not fit into the 16 bits in which AVX2 adds them.
    """

    weight: int
    zero: int
    above: int

    def __post_init__(self) -> None:
        if 2 * (self.zero + self.above) * self.weight > np.iinfo(np.int16).max:
            raise ValueError(f"{self} overflows 16 bits.")


_SIGNED = Levels(weight=63, zero=128, above=127)
# What comes out of GELU is never below -0.17: few levels do for that, and the weights can have a bit more.
_GELU = Levels(weight=127, zero=16, above=111)
_GELU_LOWEST = 0.17
# Much of attention hangs on this coordinate of the hidden state. Its weights are multiplied by so much and its values
# divided, which is SmoothQuant (Xiao et al. 2023) for one channel; it takes a third of the error away.
_STEEP, _SMOOTHING = 99, np.float32(3)


def build_model(weights: Mapping[str, Array]) -> bytes:
    """The serialised graph.

    Its input is ``input_ids``, one text's tokens as int64 of shape (1, tokens); its output is ``vectors``, float32 of
    shape (1, 384), of length 1.

    Args:
        weights: the tensors of BERT by their names in model.safetensors, without a prefix.
    """
    return _Builder(weights).build()


class _Builder:
    def __init__(self, weights: Mapping[str, Array]) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._zeros_by_row: dict[Levels, str] = {}

    def build(self) -> bytes:
        hidden = self._embeddings()
        for layer in range(LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden)
        mean = self._node("ReduceMean", [hidden, self._constant("second", np.array([1]))], keepdims=0)
        self._nodes.append(helper.make_node("LpNormalization", [mean], ["vectors"], axis=1, p=2))
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, HIDDEN])],
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

    def _node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{op}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

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
        return self._normalise("embeddings.", total)

    def _layer(self, prefix: str, hidden: str) -> str:
        attended = self._attention(prefix + "attention.self.", hidden)
        out = self._linear(prefix + "attention.output.dense", attended, _SIGNED)
        hidden = self._normalise(prefix + "attention.output.", self._node("Add", [out, hidden]))
        inner = self._linear(prefix + "intermediate.dense", hidden, _SIGNED, then="FastGelu", domain=_ORT)
        out = self._linear(prefix + "output.dense", inner, _GELU)
        return self._normalise(prefix + "output.", self._node("Add", [out, hidden]))

    def _attention(self, prefix: str, hidden: str) -> str:
        """Vaswani et al. 2017, section 3.2; the three projections are one multiplication."""
        names = [prefix + part for part in ("query", "key", "value")]
        matrix = np.concatenate([self._weights[name + ".weight"] for name in names])
        bias = np.concatenate([self._weights[name + ".bias"] for name in names])
        smoothing = np.ones(HIDDEN, np.float32)
        smoothing[_STEEP] = _SMOOTHING
        smooth = self._node("Mul", [hidden, self._constant("smoothing", 1 / smoothing)])
        rows = self._quantise(smooth, _SIGNED)
        together = self._multiply(prefix + "all", matrix * smoothing, rows, _SIGNED)
        self._nodes.append(helper.make_node("Split", [together], names, axis=2, num_outputs=3))
        return self._node(
            "MultiHeadAttention",
            [*names, self._constant(prefix + "bias", bias)],
            domain=_ORT,
            num_heads=HEADS,
        )

    def _linear(self, name: str, hidden: str, levels: Levels, *, then: str = "Add", domain: str = "") -> str:
        """A layer; ``then`` is what adds its bias."""
        product = self._multiply(
            name, self._weights[name + ".weight"], self._quantise(hidden, levels), levels
        )
        return self._node(then, [product, self._weight(name + ".bias")], domain=domain)

    def _quantise(self, hidden: str, levels: Levels) -> tuple[str, str]:
        """The rows in 8 bits, and their scales, of shape (1, tokens, 1). No row is zero: a bias was added to each."""
        last = self._constant("last", np.array([-1]))
        step = self._constant(f"step.{levels.above}", np.float32(1 / levels.above))
        if levels is _GELU:
            largest = self._node("ReduceMax", [hidden, last], keepdims=1)
            least = self._constant("gelu.least", np.float32(_GELU_LOWEST / levels.zero * levels.above))
            largest = self._node("Max", [largest, least])
        else:
            largest = self._node("ReduceMax", [self._node("Abs", [hidden]), last], keepdims=1)
        scales = self._node("Mul", [largest, step])
        by_row = self._node("Reshape", [scales, last])
        rows = self._node("QuantizeLinear", [hidden, by_row, self._zeros(levels)], axis=1)
        return rows, scales

    def _zeros(self, levels: Levels) -> str:
        """The level of 0, once for each row."""
        if levels not in self._zeros_by_row:
            zero = self._constant(f"zeros.{levels.zero}", np.array([levels.zero], np.uint8))
            length = self._node("Shape", ["input_ids"], start=1, end=2)
            self._zeros_by_row[levels] = self._node("Expand", [zero, length])
        return self._zeros_by_row[levels]

    def _multiply(self, name: str, weights: Array, rows: tuple[str, str], levels: Levels) -> str:
        """The rows times weights of shape (out, in)."""
        scales = np.abs(weights).max(axis=1) / levels.weight
        quantised = np.round(weights / scales[:, None]).astype(np.int8).T
        product = self._node(
            "MatMulIntegerToFloat",
            [
                rows[0],
                self._constant(name + ".quantised", quantised),
                self._constant("one", np.float32(1)),
                self._constant(name + ".scales", scales.astype(np.float32)),
                self._constant(f"zero.{levels.zero}", np.uint8(levels.zero)),
            ],
            domain=_ORT,
        )
        return self._node("Mul", [product, rows[1]])

    def _normalise(self, prefix: str, hidden: str) -> str:
        norm = [self._weight(f"{prefix}LayerNorm.{part}") for part in ("weight", "bias")]
        return self._node("LayerNormalization", [hidden, *norm], axis=-1, epsilon=EPSILON)
