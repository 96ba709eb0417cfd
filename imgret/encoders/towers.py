"""How one tower of an open_clip model becomes an ONNX file: `export_tower`, `quantise_tower` for int8 copies, and
`put_tables_beside` for the one that is kept.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imgret.encoders.clip import ClipEncoder

if TYPE_CHECKING:
    import torch

_MAX_FILE_BYTES = 2_000_000_000
"""A protobuf ends at 2 GiB; the weights of a larger tower go into a file beside it."""

_TABLE_BYTES = 4_000_000
"""Embedding tables from this size on go into a file beside the tower, too."""

_LOOK_UPS = ("Gather", "GatherBlockQuantized")

_LINEAR_SHARE = 0.5
"""Int8 is for towers with at least this share of their weights, embeddings aside, in linear layers."""

_LINEAR_BY_ROWS = """
<opset_import: ["": {opset}, "com.microsoft": 1], domain: "imgret">
LinearByRows (x, weight, weight_scale) => (y) {{
    last = Constant <value = int64[1] {{-1}}> ()
    depth = Shape <start = -1> (x)
    rows_shape = Concat <axis = 0> (last, depth)
    rows = Reshape (x, rows_shape)
    highest = ReduceMax <keepdims = 0> (rows, last)
    lowest = ReduceMin <keepdims = 0> (rows, last)
    opposite = Neg (lowest)
    tiny = Constant <value = float {{1e-30}}> ()
    largest = Max (highest, opposite, tiny)
    steps = Constant <value = float {{127.0}}> ()
    scale = Div (largest, steps)
    count = Shape (scale)
    zeros = ConstantOfShape <value = uint8[1] {{128}}> (count)
    whole = QuantizeLinear <axis = 0> (rows, scale, zeros)
    one = Constant <value = float {{1.0}}> ()
    zero = Constant <value = uint8 {{128}}> ()
    product = com.microsoft.MatMulIntegerToFloat (whole, weight, one, weight_scale, zero)
    column = Unsqueeze (scale, last)
    scaled = Mul (product, column)
    leading = Shape <end = -1> (x)
    width = Shape (weight_scale)
    shape = Concat <axis = 0> (leading, width)
    y = Reshape (scaled, shape)
}}
"""
"""x (..., depth) times weight (depth, width) of 8 bits, with a scale for each row of x and each column of weight."""

_BLOCK = 128
"""Values that share a scale in "int8-blocks": of 32, 64 and 128 the fastest on ViT-B/32, at cosines of 0.9999."""


def ignores_padding(encoder: ClipEncoder) -> bool:
    """Whether the text tower gives the same vector with and without the padding after a text.

    So it does where each token sees only earlier ones and the end token is the answer (CLIP), and where padding is
    masked out (Hugging Face text towers); not in SigLIP, which was trained to look at the padding, too.
    """
    from open_clip.hf_model import HFTextEncoder

    text = getattr(encoder.model, "text", encoder.model)
    library = getattr(encoder.tokenizer, "tokenizer", None)
    if library is not None and library.padding_side != "right":
        return False
    if isinstance(text, HFTextEncoder):
        return bool(library is not None and library.pad_token_id == text.config.pad_token_id)
    pool = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    causal = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None
    return causal and pool in ("argmax", "eos")


def export_tower(
    encoder: ClipEncoder, kind: Literal["image", "text"], sample: "torch.Tensor", file: Path, any_length: bool = False
) -> None:
    """Write a tower, with normalisation inside and of any batch size, to `file`.

    Args:
        encoder: whose tower it is; its model is left as it was.
        kind: which tower.
        sample: two rows of its input, on the CPU: pixels (2, 3, H, W) or ids (2, length).
        any_length: whether the text tower shall take ids of any length up to the context length.
    """
    import copy

    import torch

    model = encoder.model
    if next(model.parameters()).device.type != "cpu":
        model = copy.deepcopy(model).cpu()
    tower = _tower(model, kind, any_length).eval()
    free = {0: "batch", 1: "length"} if any_length else {0: "batch"}
    weights = sum(p.numel() * p.element_size() for p in (model.visual if kind == "image" else model).parameters())
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            tower,
            (sample,),
            file,
            input_names=["pixels" if kind == "image" else "ids"],
            output_names=["vectors"],
            dynamic_shapes=(dict.fromkeys(free, torch.export.Dim.DYNAMIC),),
            external_data=weights > _MAX_FILE_BYTES,
            dynamo=True,
            verbose=False,
        )


def quantise_tower(source: Path, targets: Mapping[str, Path]) -> bool:
    """Write copies of `source` with its linear layers in int8; embeddings and convolutions stay as they are.

    Args:
        source: a tower in fp32.
        targets: where to write "int8-rows", with one scale for each row of an activation and one for each column of a
            weight: the fastest, a quarter of the size, but coarse where a few values of a row are large; and
            "int8-blocks", with a scale for each 128 values in a row: closer, half as much faster than fp32 as the
            other. Both give a row the same vector in any batch.

    Returns:
        Whether they were written: not where the tower has so few linear layers that it would gain nothing.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(source)
    if _linear_share(model) < _LINEAR_SHARE:
        return False
    _quantise_by_rows(model)
    onnx.save(model, targets["int8-rows"])
    # Accuracy level 4: activations are int8, too.
    blocks = DefaultWeightOnlyQuantConfig(bits=8, block_size=_BLOCK, is_symmetric=True, accuracy_level=4)
    quantiser = MatMulNBitsQuantizer(onnx.load(source), algo_config=blocks)
    quantiser.process()
    quantiser.model.save_model_to_file(str(targets["int8-blocks"]), use_external_data_format=False)
    return True


def _quantise_by_rows(model: Any) -> None:
    """Replace the products with constant matrices in an ONNX model by `_LINEAR_BY_ROWS`."""
    import numpy as np
    from onnx import helper, numpy_helper, parser

    graph = model.graph
    matrices = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}
    nodes: list[Any] = []
    quantised: dict[str, Any] = {}
    for node in graph.node:
        options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        transposed = bool(options.pop("transB", 0))
        plain = not options.get("transA") and options.get("alpha", 1) == options.get("beta", 1) == 1
        if node.op_type not in ("MatMul", "Gemm") or not plain or node.input[1] not in matrices:
            nodes.append(node)
            continue
        name = f"{node.input[1]}.int8{'.transposed' if transposed else ''}"
        scale = f"{name}.scale"
        if name not in quantised:
            matrix = numpy_helper.to_array(matrices[node.input[1]]).astype(np.float32)
            matrix = matrix.T if transposed else matrix
            scales = np.maximum(np.abs(matrix).max(axis=0) / 127, np.float32(1e-30))
            whole = np.ascontiguousarray(np.rint(matrix / scales).astype(np.int8))
            quantised |= {name: numpy_helper.from_array(whole, name), scale: numpy_helper.from_array(scales, scale)}
        bias = list(node.input[2:])
        product = f"{node.output[0]}.product" if bias else node.output[0]
        nodes.append(helper.make_node("LinearByRows", [node.input[0], name, scale], [product], domain="imgret"))
        if bias:
            nodes.append(helper.make_node("Add", [product, *bias], node.output))
    used = {name for node in nodes for name in node.input}
    tensors = [*(tensor for tensor in graph.initializer if tensor.name in used), *quantised.values()]
    opset = next(each.version for each in model.opset_import if each.domain == "")
    for old, new in ((graph.node, nodes), (graph.initializer, tensors), (graph.value_info, [])):
        del old[:]
        old.extend(new)
    model.functions.append(parser.parse_function(_LINEAR_BY_ROWS.format(opset=opset)))
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in ("com.microsoft", "imgret"))


def put_tables_beside(file: Path) -> None:
    """Move a tower's embedding tables into a file beside it, which ONNX Runtime maps: of a vocabulary, only the words
    that were asked for are then in memory (`starter`: 12 MB in all, XLM-RoBERTa: 770 MB).
    """
    import onnx
    from onnx.external_data_helper import set_external_data, uses_external_data

    model = onnx.load(file, load_external_data=False)
    looked_up = {node.input[0] for node in model.graph.node if node.op_type in _LOOK_UPS}
    tensors = {t.name: t for t in model.graph.initializer}
    if any(uses_external_data(tensor) for tensor in tensors.values()):
        return  # a tower over 2 GB: all of its weights are there already
    tables = [tensors[name] for name in looked_up & tensors.keys() if len(tensors[name].raw_data) >= _TABLE_BYTES]
    for table in tables:
        set_external_data(table, f"{file.name}.data")
    if tables:
        onnx.save(model, file)
        file.with_name(f"{file.name}.data").chmod(file.stat().st_mode)


def _tower(model: Any, kind: Literal["image", "text"], any_length: bool) -> "torch.nn.Module":
    import torch
    from torch.nn.functional import normalize

    class PictureTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = model.visual

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return normalize(self.visual(pixels).float(), dim=-1)

    class TextTower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return normalize(self.model.encode_text(ids).float(), dim=-1)

    class TextTowerOfAnyLength(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = TextTower()
            owner = model if hasattr(model, "positional_embedding") else model.text
            self.prefix = "model." if owner is model else "model.text."
            self.position, self.mask = owner.positional_embedding, owner.attn_mask

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            # open_clip adds all positions and the whole causal mask; for fewer tokens, the first of either are meant.
            length = ids.shape[1]
            shorter = {"positional_embedding": self.position[:length], "attn_mask": self.mask[:length, :length]}
            vectors = torch.func.functional_call(self.tower, {self.prefix + k: v for k, v in shorter.items()}, (ids,))
            assert isinstance(vectors, torch.Tensor)
            return vectors

    if kind == "image":
        return PictureTower()
    from open_clip.hf_model import HFTextEncoder

    masks_padding = isinstance(getattr(model, "text", None), HFTextEncoder)
    return TextTowerOfAnyLength() if any_length and not masks_padding else TextTower()


def _linear_share(model: Any) -> float:
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    inputs = [(node.op_type, name) for node in model.graph.node for name in node.input if name in sizes]
    embeddings = {name for operator, name in inputs if operator == "Gather"}
    linear = {name for operator, name in inputs if operator in ("MatMul", "Gemm")}
    rest = sum(size for name, size in sizes.items() if name not in embeddings)
    return sum(sizes[name] for name in linear) / rest if rest else 0.0


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on its own workings from the user, who can do nothing about them."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
