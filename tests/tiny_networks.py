"""Tiny random networks of the real classes, under the names that evaluation looks for."""

import atexit
import shutil
import string
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bases import clip_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip


def save(folder: Path, *names: str) -> Path:
    """Write those that are named, of random weights, and return the folder."""
    for name in names:
        shutil.copytree(_made(name), folder / name)
    return folder


@cache
def _made(name: str) -> Path:
    """Return a folder of a network, made when it is first asked for; it lasts as long as the process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    kinds = {
        "dino-vits16": _dino, "clip-vit-base-patch32": _clip, "clipseg-rd64-refined": _clipseg,
        "blip2": _blip2, "tagger": _tagger, "detector": _detector, "sam": _sam,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kinds[name](folder)
    return folder


def _dino(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    ViTModel(ViTConfig(**SIZES, image_size=224, patch_size=56), add_pooling_layer=False).save_pretrained(folder)


def _texts() -> tuple[Any, dict[str, Any]]:
    tokenizer = clip_tokenizer(length=77)
    special = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    return tokenizer, {**SIZES, **special, "vocab_size": len(tokenizer), "max_position_embeddings": 77}


def _clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    tokenizer, text = _texts()
    vision = {**SIZES, "image_size": 224, "patch_size": 56}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _clipseg(folder: Path) -> None:
    from transformers import CLIPSegConfig, CLIPSegForImageSegmentation

    tokenizer, text = _texts()
    vision = {**SIZES, "image_size": 352, "patch_size": 32}
    config = CLIPSegConfig(
        text_config=text, vision_config=vision, projection_dim=8, reduce_dim=8, extract_layers=[0, 1],
        decoder_num_attention_heads=2, decoder_intermediate_size=16, conditional_layer=0,
    )  # fmt: skip
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _blip2(folder: Path) -> None:
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessor,
        OPTConfig,
    )

    tokenizer, _ = _texts()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    special = {f"{end}_token_id": getattr(tokenizer, f"{end}_token_id") for end in ("bos", "eos", "pad")}
    text = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=77, word_embed_proj_dim=16, **special,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**SIZES, image_size=32, patch_size=16).to_dict(),
        qformer_config=Blip2QFormerConfig(**SIZES, vocab_size=len(tokenizer), encoder_hidden_size=16).to_dict(),
        text_config=text.to_dict(), num_query_tokens=2,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 32, "width": 32})
    Blip2Processor(images, tokenizer, num_query_tokens=2).save_pretrained(folder)


def _bert_tokenizer() -> Any:
    """Return BERT's tokenizer with the letters as its vocabulary; Grounding DINO knows four tokens by their numbers."""
    from transformers import BertTokenizer

    pieces = ["[PAD]", "[UNK]", "[MASK]", *string.ascii_lowercase, *(f"##{one}" for one in string.ascii_lowercase)]
    words = pieces + [f"[{number}]" for number in range(len(pieces), 1030)]
    for piece, number in {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}.items():
        words[number] = piece
    vocab = {piece: number for number, piece in enumerate(words)}
    return BertTokenizer(vocab=vocab, model_max_length=256)


def _tagger(folder: Path) -> None:
    from transformers import BertConfig, BertForTokenClassification

    tokenizer = _bert_tokenizer()
    labels = {0: "DET", 1: "NOUN", 2: "VERB"}
    config = BertConfig(**SIZES, vocab_size=1030, id2label=labels, label2id={name: n for n, name in labels.items()})
    net = BertForTokenClassification(config)
    torch.nn.init.constant_(net.classifier.bias, 0)
    net.classifier.bias.data[1] = 10  # whatever it reads is a noun
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _detector(folder: Path) -> None:
    from transformers import (
        BertConfig,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        GroundingDinoProcessor,
        SwinConfig,
    )

    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=4, out_features=["stage2", "stage3"],
        image_size=64,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=backbone.to_dict(), text_config=BertConfig(**SIZES, vocab_size=1030).to_dict(), d_model=32,
        encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=6, num_feature_levels=2, max_text_len=256,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    GroundingDinoProcessor(images, _bert_tokenizer()).save_pretrained(folder)


def _sam(folder: Path) -> None:
    from transformers import (
        SamConfig,
        SamImageProcessor,
        SamMaskDecoderConfig,
        SamModel,
        SamProcessor,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    vision = SamVisionConfig(
        hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=16,
        window_size=2, global_attn_indexes=[0], num_pos_feats=8, mlp_dim=32,
    )  # fmt: skip
    prompts = SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=16, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=32, num_hidden_layers=1, num_attention_heads=2, iou_head_depth=1, iou_head_hidden_dim=16
    )
    config = SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompts.to_dict(), mask_decoder_config=decoder.to_dict()
    )
    SamModel(config).save_pretrained(folder)
    sides = {"height": 64, "width": 64}
    SamProcessor(SamImageProcessor(size={"longest_edge": 64}, pad_size=sides)).save_pretrained(folder)
