"""An encoder of sentences, as an ONNX model, from weights that a package has in another form.

The network is BERT's encoder (Devlin et al., 2018) with six layers of 12 heads and a width of 384, and
the mean of its outputs over the words, as the package's own model card describes it. The weights are
trained; the graph is ours.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tests.tree import ROOT

from bench.models.samples import Arrays

LAYERS, HEADS, WIDTH = 6, 12, 384
WORDS = 64
"""Longest sentence, in pieces of words."""
EPSILON = 1e-12
OPSET = 17
DOCS = ROOT / "docs"

Weights = dict[str, npt.NDArray[np.float32]]


def model(safetensors: Path) -> bytes:
    """Return the model that these weights are of: ``ids`` and ``mask`` in, ``embedding`` out."""
    return _Graph(_weights(safetensors)).model().SerializeToString()


def sentences(vocabulary: Path, count: int) -> Arrays:
    """Return sentences of our documentation, in the numbers of their pieces of words."""
    pieces = {piece: n for n, piece in enumerate(vocabulary.read_text("utf-8").splitlines())}
    text = " ".join(path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md")))
    found = [s for s in re.split(r"(?<=[.:;])\s+", text) if 40 < len(s) < 200 and "|" not in s]
    ids = np.zeros((count, 1, WORDS), np.int64)
    for row, sentence in zip(ids, found[:: max(1, len(found) // count)], strict=False):
        words = [pieces["[CLS]"], *_numbers(sentence, pieces)[: WORDS - 2], pieces["[SEP]"]]
        row[0, : len(words)] = words
    return {"ids": ids, "mask": (ids > 0).astype(np.int64)}


def _numbers(sentence: str, pieces: dict[str, int]) -> list[int]:
    """Return the numbers of the longest pieces that words can be cut into, from their left."""
    numbers = []
    for word in re.findall(r"\w+|[^\w\s]", sentence.lower()):
        rest, prefix = word, ""
        while rest:
            length = next(
                (n for n in range(len(rest), 0, -1) if prefix + rest[:n] in pieces), 0
            )
            numbers.append(pieces[prefix + rest[:length]] if length else pieces["[UNK]"])
            rest, prefix = (rest[length:], "##") if length else ("", "")
    return numbers


def _weights(path: Path) -> Weights:
    """Read a file of safetensors: a length, a JSON head, then the tensors as they are."""
    content = path.read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    head = json.loads(content[8 : 8 + length])
    body = memoryview(content)[8 + length :]
    found: Weights = {}
    for name, about in head.items():
        if about.get("dtype") == "F32":
            begin, end = about["data_offsets"]
            found[name] = np.frombuffer(body[begin:end], np.float32).reshape(about["shape"])
    return found


class _Graph:
    """The network, node by node."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []

    def model(self) -> ModelProto:
        hidden = self._embedded()
        mask = self._bias()
        for layer in range(LAYERS):
            hidden = self._layer(hidden, mask, f"encoder.layer.{layer}")
        self._mean(hidden)
        values = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "words"])
            for name in ("ids", "mask")
        ]
        output = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", WIDTH])
        graph = helper.make_graph(self._nodes, "minilm", values, [output], self._constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
        )

    def _add(self, operator: str, inputs: list[str], name: str, **attributes: object) -> str:
        node = helper.make_node(operator, inputs, [name], name=f"/{name}")
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self._nodes.append(node)
        return name

    def _constant(self, name: str, values: npt.NDArray[np.generic]) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _embedded(self) -> str:
        words = self._add(
            "Gather", [self._weight("embeddings.word_embeddings.weight"), "ids"], "words"
        )
        places = self._weights["embeddings.position_embeddings.weight"]
        kinds = self._weights["embeddings.token_type_embeddings.weight"][0]
        shape = self._add("Shape", ["ids"], "shape")
        length = self._add("Gather", [shape, self._constant("one", np.array(1))], "length")
        zero, step = self._constant("zero", np.array(0)), "one"
        order = self._add("Range", [zero, length, step], "order")
        place = self._add("Gather", [self._constant("places", places + kinds), order], "place")
        return self._normal(
            self._add("Add", [words, place], "embedded"), "embeddings.LayerNorm"
        )

    def _bias(self) -> str:
        """Minus a large number for each word that is none."""
        mask = self._add("Cast", ["mask"], "mask32", to=TensorProto.FLOAT)
        rest = self._add(
            "Sub", [self._constant("ones", np.array([1], np.float32)), mask], "rest"
        )
        large = self._add(
            "Mul", [rest, self._constant("large", np.array([-10_000], np.float32))], "far"
        )
        axes = self._constant("axes12", np.array([1, 2]))
        return self._add("Unsqueeze", [large, axes], "bias")

    def _layer(self, hidden: str, mask: str, name: str) -> str:
        attention = f"{name}.attention"
        query, key, value = (
            self._heads(
                self._dense(hidden, f"{attention}.self.{part}"), f"{attention}.{part}", part
            )
            for part in ("query", "key", "value")
        )
        scores = self._add("MatMul", [query, key], f"{attention}.scores")
        scale = self._constant(
            f"{attention}.scale", np.array([np.sqrt(WIDTH / HEADS)], np.float32)
        )
        scores = self._add("Div", [scores, scale], f"{attention}.scaled")
        scores = self._add("Add", [scores, mask], f"{attention}.masked")
        shares = self._add("Softmax", [scores], f"{attention}.shares", axis=-1)
        mixed = self._add("MatMul", [shares, value], f"{attention}.mixed")
        mixed = self._add("Transpose", [mixed], f"{attention}.turned", perm=[0, 2, 1, 3])
        flat = self._constant(f"{attention}.flat", np.array([0, 0, WIDTH]))
        mixed = self._add("Reshape", [mixed, flat], f"{attention}.joined")
        mixed = self._dense(mixed, f"{attention}.output.dense")
        hidden = self._add("Add", [mixed, hidden], f"{attention}.sum")
        hidden = self._normal(hidden, f"{attention}.output.LayerNorm")
        wide = self._gelu(self._dense(hidden, f"{name}.intermediate.dense"), name)
        narrow = self._dense(wide, f"{name}.output.dense")
        return self._normal(
            self._add("Add", [narrow, hidden], f"{name}.sum"), f"{name}.output.LayerNorm"
        )

    def _heads(self, dense: str, name: str, part: str) -> str:
        shape = self._constant(f"{name}.shape", np.array([0, 0, HEADS, WIDTH // HEADS]))
        split = self._add("Reshape", [dense, shape], f"{name}.split")
        order = [0, 2, 3, 1] if part == "key" else [0, 2, 1, 3]
        return self._add("Transpose", [split], f"{name}.heads", perm=order)

    def _dense(self, hidden: str, name: str) -> str:
        weight = self._constant(f"{name}.weight", self._weights[f"{name}.weight"].T)
        product = self._add("MatMul", [hidden, weight], f"{name}.product")
        return self._add("Add", [product, self._weight(f"{name}.bias")], f"{name}.dense")

    def _gelu(self, hidden: str, name: str) -> str:
        root = self._constant(f"{name}.root", np.array([np.sqrt(2)], np.float32))
        error = self._add(
            "Erf", [self._add("Div", [hidden, root], f"{name}.part")], f"{name}.erf"
        )
        more = self._constant(f"{name}.more", np.array([1], np.float32))
        half = self._constant(f"{name}.half", np.array([0.5], np.float32))
        grown = self._add(
            "Mul", [hidden, self._add("Add", [error, more], f"{name}.up")], f"{name}.grown"
        )
        return self._add("Mul", [grown, half], f"{name}.gelu")

    def _normal(self, hidden: str, name: str) -> str:
        scale, bias = self._weight(f"{name}.weight"), self._weight(f"{name}.bias")
        inputs = [hidden, scale, bias]
        return self._add(
            "LayerNormalization", inputs, f"{name}.normal", axis=-1, epsilon=EPSILON
        )

    def _mean(self, hidden: str) -> None:
        mask = self._add(
            "Unsqueeze", ["mask32", self._constant("axis2", np.array([2]))], "mask3"
        )
        kept = self._add("Mul", [hidden, mask], "kept")
        axis = self._constant("axis1", np.array([1]))
        total = self._add("ReduceSum", [kept, axis], "total", keepdims=0)
        count = self._add("ReduceSum", [mask, "axis1"], "count", keepdims=0)
        self._add("Div", [total, count], "embedding")
