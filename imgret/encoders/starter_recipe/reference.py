"""The text tower's original: multilingual-e5-small in torch with its whole vocabulary."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from imgret.encoders.starter_recipe.e5 import E5, EPSILON, HEADS, LAYERS, PAD, POSITIONS, WIDTH
from imgret.encoders.starter_recipe.tokenizer import MAX_TOKENS
from imgret.encoders.tokens import Tokenizer

_BATCH = 64
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {"emb.word": "word_embeddings.weight", "emb.pos": "position_embeddings.weight"} | {
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}


class ReferenceTexts:
    """Texts to mean-pooled embeddings (n, 384) float64, not normalised."""

    def __init__(self, e5: E5, tokenizer: Tokenizer) -> None:
        import torch
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=len(e5.blocks("emb.word").nibbles),
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            max_position_embeddings=POSITIONS,
            layer_norm_eps=EPSILON,
            pad_token_id=PAD,
        )
        self._model = BertModel(config, add_pooling_layer=False).eval()  # type: ignore[no-untyped-call]
        names = {name: f"embeddings.{ours}" for name, ours in _EMBEDDINGS.items()}
        for layer in range(LAYERS):
            for short, long in _LAYER.items():
                for kind, suffix in (("w", "weight"), ("b", "bias")):
                    names[f"l{layer}.{short}.{kind}"] = f"encoder.layer.{layer}.{long}.{suffix}"
        state = self._model.state_dict()
        for name, ours in names.items():
            value = e5.tensors[name]
            array = value if isinstance(value, np.ndarray) else value.decoded()
            state[ours].copy_(torch.from_numpy(array.copy()).reshape(state[ours].shape))
        self._tokenizer = tokenizer

    def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.float64]:
        import torch

        rows = np.empty((len(texts), WIDTH))
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # like beside like: little padding
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH):
                batch = order[start : start + _BATCH]
                encoded = self._tokenizer([texts[i] for i in batch])
                assert encoded.shape[1] <= MAX_TOKENS
                ids = torch.from_numpy(encoded)
                mask = (ids != PAD).unsqueeze(-1)
                hidden = self._model(input_ids=ids, attention_mask=mask.squeeze(-1).long()).last_hidden_state.double()
                rows[batch] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
        return rows
