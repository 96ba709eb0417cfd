"""Small open_clip models of every kind that is exported, with seeded random weights."""

import json
from pathlib import Path

VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8}
SMALL_TEXT = {"context_length": 20, "width": 64, "heads": 2, "layers": 2}
SMALL_MODELS = {
    # CLIP: its own tokenizer, causal attention, the end token is the answer.
    "clip": {"text_cfg": {**SMALL_TEXT, "vocab_size": 49408}},
    # SigLIP: a sentence-piece tokenizer, attention to everything, the last position is the answer, padding or not.
    "siglip": {
        "custom_text": True,
        "text_cfg": {
            **SMALL_TEXT,
            "vocab_size": 1000,
            "hf_tokenizer_name": "here",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    },
    # A Hugging Face text tower, masked mean of all positions.
    "xlm-roberta": {
        "text_cfg": {
            "hf_model_name": "here",
            "hf_tokenizer_name": "here",
            "hf_pooler_type": "mean_pooler",
            "context_length": 20,
        }
    },
}


def small_model_folder(folder: Path, name: str, texts: list[str]) -> str:
    """Writes the model called `name` in SMALL_MODELS into `folder`; returns its URI. `texts` train its tokenizer."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from transformers import XLMRobertaConfig

    if name != "clip":
        train_tokenizer(folder, texts)
    if name == "xlm-roberta":
        size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
        XLMRobertaConfig(vocab_size=1000, max_position_embeddings=40, pad_token_id=1, **size).save_pretrained(folder)
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    config = {
        "model_cfg": {"embed_dim": 48, "vision_cfg": VISION, **SMALL_MODELS[name]},
        "preprocess_cfg": preprocess,
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config).replace('"here"', json.dumps(str(folder))))
    torch.manual_seed(len(name))  # another model for each name
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False)
    save_file(
        {key: tensor.contiguous() for key, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return f"local-dir:{folder}"


def train_word_pieces(folder, texts):
    """A word-piece tokenizer as BERT and MiniLM have it, learned from the captions."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    library = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    library.normalizer, library.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    library.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=900, special_tokens=specials))
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=library, **named).save_pretrained(folder)


def train_tokenizer(folder, texts):
    """A sentence-piece tokenizer of the kind that T5, Gemma and XLM-RoBERTa have, learned from the captions."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    library = Tokenizer(models.Unigram())
    library.normalizer = normalizers.NFKC()
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    library.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=900, special_tokens=specials, unk_token="<unk>")
    )
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    named = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=library, **named).save_pretrained(folder)
