"""Stage 6: the text encoder learns what captions say, from the truth about their scenes; it never sees a picture.

A network that cannot draw shapes yet has no use for their names, and finds it easiest to overlook them: where both were
trained together, the encoder's states of "dog" and "car" came to differ by 3 %, of two places by 160 %, and all
subjects looked alike. So the encoder is taught first and then stays as it is, as that of Stable Diffusion does.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from numpy.random import default_rng
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from persona.atomic import folder_beside
from persona.clay.world import (
    ACCESSORIES,
    CLASSES,
    COLOURS,
    CONTEXTS,
    PATTERNS,
    POSES,
    PROPERTIES,
    RELATIONS,
    STYLES,
    VIEWS,
    Scene,
)
from persona.pretrain.clay.data import scenes_of, shards_of
from persona.pretrain.clay.mixed import mixed
from persona.pretrain.clay.text import MAX_TOKENS, prompt_of
from persona.pretrain.state import Run, cosine

BATCH = 128
RATE = 1e-3
_ENTITY: dict[str, tuple[str, ...]] = {
    "class": CLASSES, "colour": tuple(COLOURS), "second": tuple(COLOURS), "accent": tuple(COLOURS),
    "pattern": tuple(PATTERNS), "pose": POSES, "accessory": ("none", *ACCESSORIES),
    "property": ("none", *PROPERTIES), "cross": ("none", *CLASSES),
}  # fmt: skip
MEANINGS: dict[str, tuple[str, ...]] = {
    "context": tuple(CONTEXTS), "style": tuple(STYLES), "view": tuple(VIEWS), "relation": ("none", *RELATIONS),
    **{f"first {name}": labels for name, labels in _ENTITY.items()},
    **{f"other {name}": labels for name, labels in _ENTITY.items()},
}  # fmt: skip
"""What a caption may tell, and the answers."""


def meaning(scene: Scene) -> dict[str, str]:
    """Return what there is to tell of a scene; nothing of another entity where there is none."""
    told = {"context": scene.context, "style": scene.style, "view": scene.view, "relation": scene.relation or "none"}
    for which, entity in zip(("first", "other"), scene.entities, strict=False):
        who = entity.subject
        values = (who.class_noun, *who.colour_names, who.pattern, entity.pose, entity.accessory, entity.property)
        for name, value in zip(_ENTITY, (*values, who.cross), strict=True):
            told[f"{which} {name}"] = value or "none"
    return told


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a text encoder of random weights."""
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=192, intermediate_size=768, num_hidden_layers=4,
            num_attention_heads=6, max_position_embeddings=MAX_TOKENS, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, projection_dim=192,
        )
    )  # fmt: skip
    # Words as large as what the layers add to them: at CLIP's 0.02 they drown in it.
    nn.init.normal_(encoder.get_input_embeddings().weight)
    return encoder


class Reader(nn.Module):
    """Reads each meaning off what the encoder holds where a caption has ended."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(labels)) for name, labels in MEANINGS.items()})

    def forward(self, states: Tensor, ended: Tensor) -> dict[str, Tensor]:
        """Return logits (B, labels) of every head.

        Args:
            states: of the encoder, (B, L, C).
            ended: whether the caption has ended at a place, (B, L).
        """
        share = ended / ended.sum(1, keepdim=True)
        read = (states * share[..., None]).sum(1)
        return {name: head(read) for name, head in self.heads.items()}


def train_text_encoder(
    data: Path, tokenizer: CLIPTokenizer, folder: Path, steps: int, seed: int, save_every: int = 250
) -> Iterator[tuple[int, float]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, loss) now and then.

    The averaged weights are saved in `folder / "text_encoder"`.
    """
    torch.manual_seed(seed)
    encoder = new_text_encoder(tokenizer)
    reader = Reader(encoder)
    parameters = [*encoder.parameters(), *reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=1e-2, fused=True)
    run = Run(folder, {"text": encoder, "reader": reader}, optimizer, decay=0.998)
    run.resume()
    scenes = [scene for shard in shards_of(data) for scene in scenes_of(data, shard)]
    while run.step < steps:
        started = time.perf_counter()
        rng = default_rng((seed, 7, run.step))
        chosen = [scenes[number] for number in rng.integers(len(scenes), size=BATCH)]
        prompts = [prompt_of(scene, rng) for scene in chosen]
        tokens = tokenizer(prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        with mixed():
            states = encoder(tokens.input_ids).last_hidden_state
        read = reader(states.float(), tokens.input_ids == tokenizer.eos_token_id)
        wanted = labels(chosen)
        loss = sum((cross_entropy(read[name], right) for name, right in wanted.items()), torch.zeros(()))
        run.advance(loss, cosine(RATE, run.step, steps, warm_up=100, least=0.02), started)
        if run.step % 50 == 0:
            run.curve.append((run.step, loss.item()))
            yield run.step, loss.item()
        if run.step % save_every == 0 or run.step == steps:
            run.save()
    run.use_average()
    disable_progress_bar()  # of the writing
    with folder_beside(folder / "text_encoder") as part:
        encoder.save_pretrained(part)


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Return label numbers (B,) of every head that at least one scene has something to tell of, -100 where none."""
    told = [meaning(scene) for scene in scenes]
    return {
        name: torch.tensor([known.index(one[name]) if name in one else -100 for one in told])
        for name, known in MEANINGS.items()
        if any(name in one for one in told)
    }
