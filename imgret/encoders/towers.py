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

_LINEAR_SHARE = 0.5
"""Int8 is for towers with at least this share of their weights, embeddings aside, in linear layers."""

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
        targets: where to write "int8", with one scale for a whole activation and one for each column of a weight: the
            fastest, a quarter of the size, but coarse where a few activations are large, and a little dependent on the
            batch; and "int8-blocks", with a scale for each 128 values in a row: closer, the same in any batch, half as
            much faster than fp32 as the other.

    Returns:
        Whether they were written: not where the tower has so few linear layers that it would gain nothing.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    model = onnx.load(source)
    if _linear_share(model) < _LINEAR_SHARE:
        return False
    # What pre-processing would do, torch's exporter has done; the mark keeps the quantiser from warning about it.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    linear = {"op_types_to_quantize": ["MatMul", "Gemm"], "extra_options": {"MatMulConstBOnly": True}}
    quantize_dynamic(model, targets["int8"], per_channel=True, **linear)
    # Accuracy level 4: activations are int8, too.
    blocks = DefaultWeightOnlyQuantConfig(bits=8, block_size=_BLOCK, is_symmetric=True, accuracy_level=4)
    quantiser = MatMulNBitsQuantizer(onnx.load(source), algo_config=blocks)
    quantiser.process()
    quantiser.model.save_model_to_file(str(targets["int8-blocks"]), use_external_data_format=False)
    return True


def put_tables_beside(file: Path) -> None:
    """Move a tower's embedding tables into a file beside it, which ONNX Runtime maps: of a vocabulary, only the words
    that were asked for are then in memory (`starter`: 47 MB in all, XLM-RoBERTa: 770 MB).
    """
    import onnx
    from onnx.external_data_helper import set_external_data, uses_external_data

    model = onnx.load(file, load_external_data=False)
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
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
