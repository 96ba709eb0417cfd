"""The starter's two towers as ONNX graphs: stored in few bits, computed in float32.

Matrices of the text tower stay in the 4-bit blocks that they came in, which ONNX Runtime multiplies with; every other
weight is float16 in the file, and ONNX Runtime widens it when it opens the tower.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.encoders.starter_recipe.e5 import BLOCK, E5, EPSILON, HEADS, LAYERS, PAD, WIDTH, Blocks
from imgret.encoders.starter_recipe.kernel_map import CLASSES_SHARE, GAMMA, KernelMap, PictureHead
from imgret.encoders.starter_recipe.tokenizer import MAX_TOKENS
from imgret.encoders.towers import put_tables_beside

_OPSET, _MICROSOFT = 20, 1
_IR_VERSION = 10
_TINY = 1e-12


def write_text_tower(e5: E5, kept: npt.NDArray[np.int64], texts_map: KernelMap, file: Path) -> None:
    """From ids (n, length) int64 of the kept pieces to unit vectors (n, d) float32."""
    graph = _Graph()
    ids = "ids"
    hidden = _embedded(graph, e5, kept, ids)
    padded = graph.add("Cast", [graph.add("Not", [graph.add("Equal", [ids, graph.constant(np.int64(PAD))])])], to=6)
    for layer in range(LAYERS):
        hidden = _layer(graph, e5, f"l{layer}", hidden, padded)
    mask = graph.add("Unsqueeze", [graph.add("Cast", [padded], to=1), graph.constant(np.array([2]))])
    pooled = graph.add(
        "Div",
        [graph.summed(graph.add("Mul", [hidden, mask]), 1), graph.summed(mask, 1)],
    )
    x = graph.unit(graph.add("Sub", [pooled, graph.weight(texts_map.mean)]))
    # exp(-gamma |x - z|^2) of unit vectors is exp(2 gamma x.z - 2 gamma).
    products = graph.add("MatMul", [x, graph.weight(2 * GAMMA * texts_map.landmarks.T)])
    kernel = graph.add("Exp", [graph.add("Sub", [products, graph.constant(np.float32(2 * GAMMA))])])
    vectors = graph.unit(graph.add("MatMul", [kernel, graph.weight(texts_map.matrix)]))
    graph.write(file, (ids, np.int64, ["n", "length"]), (vectors, ["n", texts_map.matrix.shape[1]]))
    put_tables_beside(file)


def write_picture_tower(trunk: Any, head: PictureHead, file: Path) -> None:
    """From pixels (n, 3, 224, 224) float32 to unit vectors (n, d) float32; `trunk` is timm's EfficientNet-Lite0."""
    import onnx
    import torch
    from torch.nn.functional import normalize

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = trunk
            for name, value in (
                ("projection", head.projection),
                ("weights", head.weights),
                ("bias", head.bias),
                ("directions", head.directions),
            ):
                self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            features = self.trunk.forward_head(self.trunk.forward_features(pixels), pre_logits=True)
            seen = normalize(features @ self.get_buffer("projection").T, dim=-1)
            classes = torch.softmax(features @ self.get_buffer("weights").T + self.bias, dim=-1)
            return normalize(seen + CLASSES_SHARE * normalize(classes @ self.get_buffer("directions"), dim=-1), dim=-1)

    sample = torch.zeros(2, 3, 224, 224)
    with torch.no_grad():
        torch.onnx.export(
            Tower().eval(),
            (sample,),
            file,
            input_names=["pixels"],
            output_names=["vectors"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    model = onnx.load(file)
    _halve(model)
    onnx.save(model, file)


class _Graph:
    """An ONNX graph as it grows; every method gives the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._tensors: list[Any] = []

    def add(self, operator: str, inputs: Iterable[str], domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        """The first output of a new node."""
        from onnx import helper

        name = f"{operator.lower()}{len(self._nodes)}"
        names = [name, *(f"{name}_{i}" for i in range(1, outputs))]
        self._nodes.append(helper.make_node(operator, list(inputs), names, name=name, domain=domain, **attributes))
        return name

    def constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        """A tensor as it is."""
        from onnx import numpy_helper

        name = f"c{len(self._tensors)}"
        self._tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def weight(self, value: npt.NDArray[Any]) -> str:
        """A tensor in float16, widened to float32."""
        return self.add("Cast", [self.constant(value.astype(np.float16))], to=1)

    def linear(self, x: str, blocks: Blocks, bias: npt.NDArray[np.float32]) -> str:
        """x (..., inputs) times a matrix (outputs, inputs) in 4 bits, and a bias."""
        outputs, inputs = blocks.nibbles.shape
        packed = blocks.packed().reshape(outputs, inputs // BLOCK, BLOCK // 2)
        matrix, scales = self.constant(packed), self.weight(blocks.scales.ravel())
        attributes = {"K": inputs, "N": outputs, "bits": 4, "block_size": BLOCK, "accuracy_level": 0}
        product = self.add("MatMulNBits", [x, matrix, scales], "com.microsoft", **attributes)
        return self.add("Add", [product, self.weight(bias)])

    def normalised(self, x: str, scale: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> str:
        """Layer normalisation over the last axis."""
        return self.add("LayerNormalization", [x, self.weight(scale), self.weight(bias)], epsilon=EPSILON)

    def summed(self, x: str, axis: int) -> str:
        """The sum along an axis, which vanishes."""
        return self.add("ReduceSum", [x, self.constant(np.array([axis]))], keepdims=0)

    def unit(self, x: str) -> str:
        """Rows divided by their norms."""
        norm = self.add("ReduceL2", [x, self.constant(np.array([-1]))], keepdims=1)
        return self.add("Div", [x, self.add("Max", [norm, self.constant(np.float32(_TINY))])])

    def write(self, file: Path, given: tuple[str, Any, list[Any]], found: tuple[str, list[Any]]) -> None:
        """Save the graph from one input (name, type, shape) to one output (name, shape) of float32."""
        import onnx
        from onnx import TensorProto, helper

        self._nodes.append(helper.make_node("Identity", [found[0]], ["vectors"]))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(given[1]))
        graph = helper.make_graph(
            self._nodes,
            "text",
            [helper.make_tensor_value_info(given[0], kind, given[2])],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, found[1])],
            self._tensors,
        )
        domains = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", _MICROSOFT)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=_IR_VERSION, producer_name="imgret")
        onnx.save(model, file)


def _embedded(graph: _Graph, e5: E5, kept: npt.NDArray[np.int64], ids: str) -> str:
    words = e5.blocks("emb.word")[kept]
    table, scales = graph.constant(words.packed()), graph.constant(words.scales)
    attributes = {"bits": 4, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1}
    zeros = graph.constant(np.full((len(kept), WIDTH // BLOCK // 2), 0x88, np.uint8))
    looked_up = graph.add("GatherBlockQuantized", [table, ids, scales, zeros], "com.microsoft", **attributes)
    looked_up = graph.add("Cast", [looked_up], to=1)
    positions = e5.floats("emb.pos").reshape(-1, WIDTH)[:MAX_TOKENS] + e5.floats("emb.type").reshape(-1, WIDTH)[0]
    length = graph.add("Slice", [graph.add("Shape", [ids]), *(graph.constant(np.array([i])) for i in (1, 2))])
    first = graph.add("Slice", [graph.weight(positions), graph.constant(np.array([0])), length])
    return graph.normalised(graph.add("Add", [looked_up, first]), e5.floats("emb.ln.w"), e5.floats("emb.ln.b"))


def _layer(graph: _Graph, e5: E5, name: str, hidden: str, mask: str) -> str:
    def linear(x: str, short: str) -> str:
        return graph.linear(x, e5.blocks(f"{name}.{short}.w"), e5.floats(f"{name}.{short}.b"))

    def normalised(x: str, short: str) -> str:
        return graph.normalised(x, e5.floats(f"{name}.{short}.w"), e5.floats(f"{name}.{short}.b"))

    inputs = [*(linear(hidden, short) for short in ("q", "k", "v")), "", mask]
    attended = graph.add("MultiHeadAttention", inputs, "com.microsoft", num_heads=HEADS)
    hidden = normalised(graph.add("Add", [linear(attended, "ao"), hidden]), "aln")
    wide = graph.add("Gelu", [linear(hidden, "fi")])
    return normalised(graph.add("Add", [linear(wide, "fo"), hidden]), "oln")


def _halve(model: Any) -> None:
    """Keep every float32 weight of a model in float16, widened by a node of its own."""
    from onnx import TensorProto, helper, numpy_helper

    halves, nodes = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.raw_data) > 4:
            narrow = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.half")
            nodes.append(helper.make_node("Cast", [narrow.name], [tensor.name], to=TensorProto.FLOAT))
            halves.append(narrow)
        else:
            halves.append(tensor)
    graph = helper.make_graph([*nodes, *model.graph.node], "image", model.graph.input, model.graph.output, halves)
    del graph.value_info[:]
    model.graph.CopyFrom(graph)
