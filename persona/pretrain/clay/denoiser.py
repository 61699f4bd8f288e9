"""Stage 7: the U-Net, trained on the latents of the renders and on what the text encoder makes of their captions.

v-prediction on a schedule rescaled to zero terminal SNR (Lin et al. 2023, "Common diffusion noise schedules and sample
steps are flawed"): a snowfield can be all bright and a jungle all dark.
"""

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from persona.atomic import beside
from persona.clay.world import Scene, faces_left
from persona.families.recipe import ATTENTION
from persona.families.recipe import RECIPE as RECIPE_FILE
from persona.families.vocabulary import WORDS
from persona.noise import Diffusion
from persona.pretrain.clay.alignment import Alignment
from persona.pretrain.clay.autoencoder import encode
from persona.pretrain.clay.data import WORN, masks_of, pixels_of, scenes_of, shards_of
from persona.pretrain.clay.mixed import mixed
from persona.pretrain.clay.text import MAX_TOKENS, caption_words, prompt_of
from persona.pretrain.learning import times
from persona.pretrain.state import Run, average_of

BATCH = 32
RATE = 7e-4
ALIGNMENT_WEIGHT = 0.5
SUBJECT_WEIGHT, WORN_WEIGHT = 10.0, 20.0
"""Of the latents of a subject and of what it wears, against 1 of the rest: the first are a fifth, the others a
hundredth, and the rest is learnt long before."""
MEAN_WEIGHT = 3.0
GAMMA = 0.5
"""Of min-SNR, less than the 5 of what learns later: shapes are decided where noise is strong, and are learnt last."""
EASY = frozenset({"sneaker", "car", "backpack"})
"""Classes whose shapes are learnt long before the others'."""
HARD_OFTEN, DRESSED_OFTEN = 3, 2
"""How many times as often scenes with other classes, and those in which something is worn, are learnt from."""
HELD = 0.5
"""Share of the training that is done at the highest rate, before it falls."""
RECIPE = {
    "max_aspect_ratio": 1.0,
    "min_steps": 300,
    "max_steps": 400,
    "steps_per_photo": 80,
    "ood_steps": 1000,
    "ood_targets": [*ATTENTION, "conv1", "conv2", "net.0.proj", "net.2"],
    "learning_rate": 1e-3,
    "text_learning_rate": 5e-4,
    "text_encoder": True,
    "pretraining_rate": 5e-4,
    "batch": 4,
    "priors": 48,
    "sample_steps": 25,
    "prior_sample_steps": 25,
    "guidance": 5.0,
    "guidance_start": 0.08,  # after two of 25 steps
}
"""What clay recommends instead of its family: it knows squares only, a network so small learns at higher rates, and
photographs, which it was never shown, change all of its layers."""


def new_scheduler() -> DDIMScheduler:
    """Return the schedule that clay is trained on and drawn with."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=True, rescale_betas_zero_snr=True, timestep_spacing="trailing",
        steps_offset=1,
    )  # fmt: skip


def new_unet() -> UNet2DConditionModel:
    """Return a U-Net of random weights, with attention on every level but the first way down.

    Fine patterns and coupled attention need it at 16x16 on the way up. Measured, samples a second of training: without
    attention at 16x16 63, with it on the way up and down 38; few heads are a tenth faster than many. What the whole
    prompt says reaches every block beside the time too, pooled, as in DeepFloyd IF.
    """
    return UNet2DConditionModel(
        sample_size=16, in_channels=8, out_channels=8, block_out_channels=(96, 192, 224), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D",) * 3, cross_attention_dim=192, attention_head_dim=(2, 3, 4),
        norm_num_groups=16, resnet_time_scale_shift="scale_shift", addition_embed_type="text",
        addition_embed_type_num_heads=6,
    )  # fmt: skip


def encode_shards(data: Path, latents: Path, model: AutoencoderKL) -> Iterator[int]:
    """Write the latents (N, 8, 16, 16) float16 of every shard that has none yet; yields its number."""
    model.to(memory_format=torch.channels_last)
    for shard in shards_of(data):
        path = latents / f"{shard:05}.npy"
        if not path.exists():
            pixels = pixels_of(data, shard)
            coded = torch.cat([encode(model, pixels[i : i + 50]) for i in range(0, len(pixels), 50)])
            with beside(path) as part:
                np.save(part, coded.half().numpy())
            yield shard


class Examples:
    """All latents and scenes in memory; draws batches, each from (seed, step) alone.

    Attributes:
        round: numbers of the scenes, each as often as it comes in a round.
        sights: where the sight of each picture is: its file, and its place there.
    """

    def __init__(self, out: Path, tokenizer: CLIPTokenizer, seed: int) -> None:
        """Read what the earlier stages left in a run's folder."""
        shards = shards_of(out / "latents")
        files = [out / "sights" / f"{shard:05}.npy" for shard in shards]
        self.sights = [(file, row) for file in files for row in range(len(np.load(file, mmap_mode="r")))]
        self.latents = np.concatenate([np.load(out / "latents" / f"{shard:05}.npy") for shard in shards])
        self.weights = np.concatenate([_weights(masks_of(out / "masks", shard)) for shard in shards])
        self.scenes = [scene for shard in shards for scene in scenes_of(out / "data", shard)]
        self.round = np.repeat(np.arange(len(self.scenes)), [_often(scene) for scene in self.scenes])
        self.tokenizer, self.seed = tokenizer, seed

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return latents (B, 8, 16, 16), their weights (B, 1, 16, 16), token ids (B, 48) and sights (B, 192, 8, 8).

        Every picture is newly captioned each time.
        """
        size = len(self.round)
        numbers = np.arange(step * BATCH, (step + 1) * BATCH)
        orders = {n: default_rng((self.seed, 3, n)).permutation(size) for n in set((numbers // size).tolist())}
        chosen = self.round[[orders[number // size][number % size] for number in numbers.tolist()]]
        rng = default_rng((self.seed, 4, step))
        prompts = [prompt_of(self.scenes[i], rng) for i in chosen]
        tokens = self.tokenizer(
            prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        seen = np.stack([np.load(file, mmap_mode="r")[row] for file, row in (self.sights[i] for i in chosen)])
        latents, weights, sights = (
            torch.from_numpy(a.astype(np.float32)) for a in (self.latents[chosen], self.weights[chosen], seen)
        )
        return latents, weights, tokens.input_ids, sights


def _often(scene: Scene) -> int:
    """Return how often a scene comes in a round: never where it faces left, or both ways would be drawn as one."""
    if faces_left(scene):
        return 0
    hard = any(entity.subject.class_noun not in EASY for entity in scene.entities)
    dressed = any(entity.accessory for entity in scene.entities)
    return (HARD_OFTEN if hard else 1) * (DRESSED_OFTEN if dressed else 1)


def _weights(masks: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Return the weights (N, 1, 16, 16) of latents in the loss, about 1 in the mean, from masks (N, 3, 128, 128)."""
    shares = masks.reshape(len(masks), -1, 16, 8, 16, 8).mean((3, 5))
    extra = (SUBJECT_WEIGHT - 1) * shares[:, :WORN].sum(1) + (WORN_WEIGHT - 1) * shares[:, WORN]
    weights: NDArray[np.float16] = ((1 + extra[:, None]) / MEAN_WEIGHT).astype(np.float16)
    return weights


def rate(step: int, steps: int) -> float:
    """Warm up, stay for a half, and fall over the other: what is fine is learnt at low rates."""
    left = (1 - step / steps) / (1 - HELD)
    fall = 1.0 if left > 1 else 0.03 + 0.97 * 0.5 * (1 - math.cos(math.pi * left))
    return RATE * min(1.0, (step + 1) / 200) * fall


def train_denoiser(
    examples: Examples, text: CLIPTextModel, folder: Path, steps: int, save_every: int = 250
) -> Iterator[tuple[int, float]]:
    """Train to `steps`, from the state in `folder` if there is one; yields (step, loss) now and then."""
    seed = examples.seed
    torch.manual_seed(seed)
    unet = new_unet().to(memory_format=torch.channels_last)
    alignment = Alignment(unet, np.load(examples.sights[0][0], mmap_mode="r").shape[1])
    parameters = [*unet.parameters(), *alignment.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=(0.9, 0.98), weight_decay=1e-2, fused=True)
    run = Run(folder, {"unet": unet, "alignment": alignment}, optimizer, decay=0.9995)
    run.resume()
    noise = Diffusion.of(new_scheduler())
    losses: list[float] = []
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(examples.batch, run.step)
        while run.step < steps:
            started = time.perf_counter()
            clean, weights, tokens, seen = coming.result()
            coming = ahead.submit(examples.batch, run.step + 1)
            noisy, target, when = _corrupted(clean, noise, (seed * 1_000_003 + run.step) % 2**63)
            # The backward of the fused attention is the slow one at 256 tokens and fewer (bf16 on a CPU).
            with mixed(), sdpa_kernel(SDPBackend.MATH):
                with torch.no_grad():
                    states = text(tokens).last_hidden_state
                guess = unet(noisy.contiguous(memory_format=torch.channels_last), when, states).sample
                apart = alignment(seen)
            loss = (weights * (guess.float() - target) ** 2).mean()
            run.advance(loss + ALIGNMENT_WEIGHT * apart, rate(run.step, steps), started)
            losses.append(loss.item())
            if run.step % 50 == 0:
                run.curve.append((run.step, sum(losses) / len(losses)))
                losses.clear()
                yield run.curve[-1]
            if run.step % save_every == 0 or run.step == steps:
                run.save()


def _corrupted(clean: Tensor, noise: Diffusion, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return noisy latents and velocities, both shaped like the clean ones, and their times (B,)."""
    rng = torch.Generator().manual_seed(seed)
    eps = torch.randn(clean.shape, generator=rng)
    when = times(noise, len(clean), rng, GAMMA)
    return *noise.corrupt(clean, eps, when), when


def assemble(vae: Path, text: Path, tokenizer: CLIPTokenizer, state: Path, target: Path) -> StableDiffusionPipeline:
    """Write a pipeline's folder: the averaged weights of a training state beside what was trained before, in float16.

    Args:
        vae: folder of the autoencoder.
        text: folder of the text encoder.
        tokenizer: clay's own.
        state: folder of the denoiser's training state.
        target: folder to write to; its recipe and its words come with it.
    """
    disable_progress_bar()  # of the writing
    unet, encoder = new_unet(), CLIPTextModel.from_pretrained(text)
    unet.load_state_dict(average_of(state, "unet"))
    autoencoder = AutoencoderKL.from_pretrained(vae)
    autoencoder.register_to_config(_name_or_path="clay")  # else the folder's path is written down
    pipeline = StableDiffusionPipeline(
        vae=autoencoder.half(), text_encoder=encoder.half(), tokenizer=tokenizer, unet=unet.half(),
        scheduler=new_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(target)
    # transformers loads in the number format that it reads here, diffusers in float32: unasked, both shall be the same.
    config = target / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")
    (target / WORDS).write_text(json.dumps(sorted(caption_words()), indent=0) + "\n", encoding="utf-8")
    (target / RECIPE_FILE).write_text(json.dumps(RECIPE, indent=1) + "\n", encoding="utf-8")
    return pipeline
