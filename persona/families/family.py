"""What a family of base models must answer; everything else is written once, against this."""

import gc
import inspect
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL.Image import Image
from torch import Generator, Tensor, nn

from persona.errors import BadBase
from persona.families.attention import choose_kernels
from persona.families.conditioning import Conditioning, Echo, Reader
from persona.families.fingerprint import fingerprint, kept
from persona.families.known import Known
from persona.families.names import Named
from persona.families.packed import Bits
from persona.families.recipe import RECIPE, Recipe
from persona.families.vocabulary import WORDS, read_words, unknown
from persona.noise import Flow, Process

TILE = 512
"""Side of the pictures, in pixels, that the autoencoder takes whole where memory is short."""


class Family(Named):
    """A frozen base model, and how its family encodes, corrupts, predicts and draws.

    A subclass names its ``pipeline`` and is thereby known; it overrides what is special about it.

    Attributes:
        name: how the user named the base.
        pipe: the diffusers pipeline, in evaluation mode, nothing of it trainable.
        dtype: number format of the frozen weights and, where it is bf16, of the forward passes.
        noise: the noise process that the base was trained with.
        recipe: the settings that the family, or the base's own ``recipe.json``, recommends.
        device: where it computes.
        bits: what the frozen linear layers are packed in; ``None`` where they are as they were.
        folder: where its configs are.
        file: the single file that its weights are in; ``None`` where they are in the folder.
    """

    known: ClassVar[dict[str, type["Family"]]] = {}

    pipeline: ClassVar[str]
    """Class name in ``model_index.json``."""
    aliases: ClassVar[dict[str, Known]] = {}
    """Short names of well-known bases, and what they stand for."""
    denoiser_name: ClassVar[str] = "transformer"
    process: ClassVar[type[Process]] = Flow
    text_targets: ClassVar[tuple[str, ...]] = ("q_proj", "k_proj", "v_proj", "out_proj")
    """Modules of the text encoders that are adapted; an encoder that has none of them stays as it is."""
    embeds: ClassVar[dict[str, str]] = {"encoder_hidden_states": "prompt_embeds"}
    """What the pipeline calls each part of the conditioning."""
    left_out: ClassVar[tuple[str, ...]] = ("safety_checker", "feature_extractor", "image_encoder")
    """Components that are not loaded."""
    recommended: ClassVar[Recipe] = Recipe()

    def __init_subclass__(cls) -> None:
        """File the family under the pipeline that it names."""
        cls.known[cls.pipeline] = cls

    def __init__(
        self,
        pipe: Any,
        *,
        name: str,
        folder: Path,
        file: Path | None = None,
        device: torch.device | None = None,
        bits: Bits | None = None,
    ) -> None:
        """Freeze a pipeline that was loaded from a folder, or with its configs from a single file.

        Its networks are on the device, or come to it by themselves when they are used.

        Raises:
            BadBase: its network predicts something that no training target is known for.
        """
        self.pipe, self.name, self.folder, self.file = pipe, name, folder, file
        self.dtype: torch.dtype = self.denoiser.dtype
        self.device: torch.device = device or self.denoiser.device
        self.bits = bits
        self.recipe = self.recommend().adjusted(folder / RECIPE)
        try:
            self.noise: Process = self.process.of(pipe.scheduler)
        except ValueError as error:
            raise BadBase(f"The base {name} cannot be trained: {error} is not supported. Choose another.") from error
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(requires_grad=False).eval()
        choose_kernels(self.denoiser, self.device)
        pipe.set_progress_bar_config(disable=True)
        self._components = [key for key, part in pipe.components.items() if part is not None]
        self._read = Reader(self._encode)

    @classmethod
    def formats(cls, folder: Path, dtype: torch.dtype) -> dict[str, torch.dtype]:
        """Return the number format of each component's weights in a folder's pipeline; ``default`` is of all others."""
        return {"default": dtype}

    @classmethod
    def correct(cls, pipe: Any, file: Path) -> None:
        """Change in a pipeline what the well-known base whose configs it has says otherwise than a single file.

        Raises:
            BadBase: it is for something else than the family does.
        """

    def recommend(self) -> Recipe:
        """Return the settings that suit this member of the family."""
        return self.recommended

    @property
    def title(self) -> str:
        """What the base is called in what is passed on: its name, or of a path the last part."""
        path = Path(self.name)
        return path.name if path.exists() else self.name

    @property
    def denoiser(self) -> Any:
        """The network that predicts; adapters go here."""
        return getattr(self.pipe, self.denoiser_name)

    @property
    def text_encoders(self) -> dict[str, nn.Module]:
        """The text encoders by their names in the pipeline; none once they were freed."""
        return {k: v for k, v in self.pipe.components.items() if k.startswith("text_encoder") and v is not None}

    @property
    def tokenizers(self) -> list[Any]:
        """The tokenizer of each text encoder."""
        return [v for k, v in self.pipe.components.items() if k.startswith("tokenizer") and v is not None]

    @cached_property
    def hash(self) -> str:
        """Sha256 (hex) over the configs and weights: equal for equal bases, wherever they are and whatever called."""
        if self.file:
            return fingerprint({"weights": self.file})
        paths = [path for name in self._components for path in kept(self.folder / name)]
        return fingerprint({path.relative_to(self.folder).as_posix(): path for path in paths})

    @property
    def lengths(self) -> list[int]:
        """How many tokens the pipeline takes from each tokenizer, be it fewer than that could read."""
        asked = inspect.signature(self.pipe.encode_prompt).parameters.get("max_sequence_length")
        return [min(one.model_max_length, asked.default if asked else math.inf) for one in self.tokenizers]

    @property
    def resolution(self) -> int:
        """Side in pixels of the pictures that the base draws best."""
        native = getattr(self.pipe, "default_sample_size", None) or self.denoiser.config.sample_size
        side = min(native) if isinstance(native, list | tuple) else native
        return self.recipe.resolution or int(side) * int(self.pipe.vae_scale_factor)

    @property
    def granularity(self) -> int:
        """What both sides of a picture must be multiples of, in pixels."""
        halvings: int = len(self.denoiser.config.get("block_out_channels", (0, 0))) - 1  # transformers take 2x2 patches
        scale: int = self.pipe.vae_scale_factor
        return scale << halvings

    @property
    def largest(self) -> float:
        """Longest side in pixels that the base knows the places of; without end in most families."""
        return math.inf

    @cached_property
    def _words(self) -> frozenset[str]:
        return read_words(self.folder)

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that the base never saw, each once; none where it does not list what it saw."""
        return unknown(prompt, self._words) if self._words else []

    def save(self, folder: Path) -> None:
        """Write a folder that is the same base, with whatever was merged into its weights.

        Raises:
            OSError: the disk is full, or the folder may not be written to.
        """
        self.pipe.save_pretrained(folder, safe_serialization=True)
        for name in (RECIPE, WORDS):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)

    # Encoding

    @torch.no_grad()
    def encode_images(self, pixels: Tensor, generator: Generator | None = None) -> Tensor:
        """Encode pictures as the denoiser knows them.

        Args:
            pixels: (B, 3, H, W) in [-1, 1], sides multiples of ``granularity``.
            generator: draws from the encoder's posterior; on the CPU.

        Returns:
            Latents (B, C, h, w), float32, on the base's device.

        Raises:
            BadBase: the latents are not finite.
        """
        vae = self.pipe.vae
        with self.autocast(vae.dtype):
            posterior = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(self.device)
        latents = posterior.mean.float() + posterior.std.float() * noise
        if not latents.isfinite().all():
            raise BadBase(f"The autoencoder of {self.name} overflows in {vae.dtype}. {_mend(vae.dtype)}")
        scaled: Tensor = (latents - (vae.config.shift_factor or 0)) * vae.config.scaling_factor
        return scaled

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> list[Image]:
        """Show latents (B, C, h, w) as pictures.

        Raises:
            BadBase: a picture is not finite.
        """
        vae = self.pipe.vae
        unscaled = latents.to(self.device, vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0)
        with self.autocast(vae.dtype):
            pixels = vae.decode(unscaled, return_dict=False)[0].float()
        if not pixels.isfinite().all():
            raise BadBase(f"{self.name} draws images that are not finite in {self.dtype}. {_mend(self.dtype)}")
        images: list[Image] = self.pipe.image_processor.postprocess(pixels, output_type="pil")
        return images

    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Encode prompts anew, with a gradient where the text encoders are adapted; one row a prompt."""
        raise NotImplementedError

    def remember(self, prompts: Sequence[str]) -> None:
        """Encode prompts once for all: from here on their conditioning needs no text encoder."""
        self._read.remember(prompts)

    def reading_once(self) -> AbstractContextManager[None]:
        """Encode each prompt but once meanwhile, while nothing learns and no strength changes."""
        return self._read.keeping()

    def conditioning(self, prompts: Sequence[str]) -> Conditioning:
        """Return the conditioning of prompts, one row each: the remembered, or else encoded, each but once."""
        return self._read.rows(prompts, self.device)

    def check_negative(self, negative: str) -> None:
        """Make sure that the base can be led away from a prompt; it may be empty.

        Raises:
            BadOption: it cannot.
        """

    def unwanted(self, negative: str, wanted: Conditioning) -> Conditioning:
        """Return what guidance leads away from: the conditioning of a prompt, for each row of what is wanted."""
        return self.conditioning([negative] * len(next(iter(wanted.values()))))

    @torch.no_grad()
    def free_frozen_text_encoders(self, prompts: Sequence[str]) -> None:
        """Let go of the text encoders that no adapter learns in; nothing but these prompts can be drawn any longer.

        Those with an adapter still run; what the freed ones said of the prompts is replayed.
        """
        for key, encoder in self.text_encoders.items():
            if has(encoder, self.text_targets):
                continue
            echo = Echo(encoder, self.device)
            with encoder.register_forward_hook(echo.listen):
                for prompt in dict.fromkeys(prompts):
                    echo.prompts = [prompt]
                    self._encode([prompt])
            setattr(self.pipe, key, echo)

    def _encode(self, prompts: Sequence[str]) -> Conditioning:
        for encoder in self.text_encoders.values():
            if isinstance(encoder, Echo):
                encoder.prompts = prompts
        return self.encode_prompts(prompts)

    def free_image_encoder(self) -> None:
        """Let go of the half of the autoencoder that only encodes; it is gone from memory."""
        self.pipe.vae.encoder = None
        self.pipe.vae.quant_conv = None

    def free_text_encoders(self) -> None:
        """Let go of the text encoders; what was not remembered can no longer be drawn."""
        for key in self.text_encoders:
            setattr(self.pipe, key, None)

    def settle(self) -> None:
        """Bring what was not freed to the device, to stay there: what learns may not be moved."""
        self.pipe.remove_all_hooks()
        release()  # what was freed, before there has to be room for the rest
        self.pipe.to(self.device)

    def tile(self, *, tiled: bool = True) -> None:
        """Let the autoencoder take large pictures a tile at a time, and blend the seams; or whole again."""
        vae = self.pipe.vae
        if not tiled:
            vae.disable_tiling()
            return
        vae.enable_tiling()
        vae.tile_sample_min_size = TILE
        vae.tile_latent_min_size = TILE // self.pipe.vae_scale_factor

    # Predicting

    @contextmanager
    def autocast(self, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Compute in bf16 where the frozen weights, of the denoiser or else of that format, are.

        The adapters' own weights stay float32.
        """
        enabled = (dtype or self.dtype) == torch.bfloat16
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            yield

    def predict(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> Tensor:
        """Return what the denoiser says of noisy latents (B, C, h, w) at times (B,), float32, shaped like them."""
        arguments = self.arguments(noisy, times, conditioning)
        with self.autocast():
            said: Tensor = self.denoiser(self.pack(noisy).to(self.dtype), **arguments, return_dict=False)[0]
        return self.unpack(said.float(), *noisy.shape[-2:])

    def arguments(self, noisy: Tensor, times: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Return what the denoiser's forward method is given beside the noisy latents (B, C, h, w), by name."""
        return {"timestep": times, **conditioning}

    def pack(self, latents: Tensor) -> Tensor:
        """Lay latents (B, C, h, w) out as the denoiser and the pipeline take them."""
        return latents

    def unpack(self, packed: Tensor, height: int, width: int) -> Tensor:
        """Undo ``pack`` for latents of that height and width."""
        return packed

    # Drawing

    @staticmethod
    def batch_of(size: tuple[int, int]) -> int:
        """Return how many pictures of that width and height, in pixels, are drawn at a time."""
        return max(1, 2**18 // (size[0] * size[1]))

    def initial_noise(self, generators: Sequence[Generator], size: tuple[int, int]) -> Tensor:
        """Draw the noise that pictures start from, each from its own generator.

        Args:
            generators: one a picture, on the CPU.
            size: width and height in pixels.

        Returns:
            Standard normal latents, one row a picture, float32, on the CPU.
        """
        width, height = (side // self.pipe.vae_scale_factor for side in size)
        shape = (1, self.pipe.vae.config.latent_channels, height, width)
        return torch.cat([torch.randn(shape, generator=generator) for generator in generators])

    @torch.no_grad()
    def draw(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str = "",
        size: tuple[int, int] | None = None,
        ancestral: bool = False,
        conditioning: Conditioning | None = None,
        latents: Tensor | None = None,
        batch: int | None = None,
    ) -> list[Image]:
        """Draw one picture for each pair of prompt and seed; it depends on these two alone, whatever the batch.

        Args:
            prompts: as the text encoder shall read them.
            seeds: one a prompt.
            steps: of the sampler; the recipe's when left out.
            guidance: classifier-free guidance scale; the recipe's when left out.
            negative: what guidance leads away from.
            size: width and height in pixels; the base's own resolution when left out.
            ancestral: sample as the noise process runs backwards (DDPM), with noise at each step, where it has one.
            conditioning: instead of the prompts' own, one row a picture.
            latents: instead of the seeds' own initial noise, as ``initial_noise`` returns it.
            batch: pictures at a time; by their size when left out.

        Raises:
            BadBase: a picture is not finite.
            BadOption: a negative prompt was given to a base that takes none.
        """
        size = size or (self.resolution, self.resolution)
        batch = batch or self.batch_of(size)
        scheduler, self.pipe.scheduler = self.pipe.scheduler, self.sampler(ancestral=ancestral)
        drawn: list[Image] = []
        try:
            for first in range(0, len(prompts), batch):
                part = slice(first, first + batch)
                wanted = {key: value[part] for key, value in (conditioning or {}).items()}
                wanted = wanted or self.conditioning(prompts[part])
                drawn += self._draw_batch(
                    wanted=wanted,
                    unwanted=self.unwanted(negative, wanted),
                    generators=[Generator().manual_seed(seed) for seed in seeds[part]],
                    latents=None if latents is None else latents[part],
                    steps=steps or (self.recipe.prior_sample_steps if ancestral else self.recipe.sample_steps),
                    guidance=self.recipe.guidance if guidance is None else guidance,
                    size=size,
                )
        finally:
            self.pipe.scheduler = scheduler
        return drawn

    def sampler(self, *, ancestral: bool = False) -> Any:
        """Return a scheduler without a past: the base's own, or the ancestral one on the same schedule."""
        own = self.pipe.scheduler
        if ancestral and self.process is not Flow:
            from diffusers import DDPMScheduler

            # Where the base's config says nothing of it, DDPM would cut latents off at 1.
            return DDPMScheduler.from_config({"clip_sample": False, **own.config})
        return type(own).from_config(own.config)

    def guiding(self, guidance: float, steps: int) -> dict[str, Any]:
        """Return what the pipeline is given to guide so strongly, in the steps in which the recipe says so."""
        if guidance <= 1 or self.guided(0, steps) or not hasattr(type(self.pipe), "do_classifier_free_guidance"):
            return {"guidance_scale": guidance}
        barely = math.nextafter(1, 2)  # at 1 the pipeline would leave out what guidance leads away from later

        def lead(pipe: Any, step: int, time: int, kept: dict[str, Any]) -> dict[str, Any]:
            pipe._guidance_scale = guidance if self.guided(step + 1, steps) else barely
            return kept

        return {"guidance_scale": barely, "callback_on_step_end": lead}

    def guided(self, step: int, steps: int) -> bool:
        """Tell whether there is guidance in one of so many steps of the sampler, counted from 0."""
        return step >= int(self.recipe.guidance_start * steps)

    def _draw_batch(
        self,
        *,
        wanted: Conditioning,
        unwanted: Conditioning,
        generators: list[Generator],
        latents: Tensor | None,
        steps: int,
        guidance: float,
        size: tuple[int, int],
    ) -> list[Image]:
        noise = self.initial_noise(generators, size)  # drawn even if not used: later noise must not repeat it
        start = noise if latents is None else latents
        with self.autocast():
            packed = self.pipe(
                **{self.embeds[key]: value for key, value in wanted.items()},
                **{f"negative_{self.embeds[key]}": value for key, value in unwanted.items()},
                latents=self.pack(start).to(self.device, self.dtype),
                generator=generators,
                num_inference_steps=steps,
                **self.guiding(guidance, steps),
                width=size[0],
                height=size[1],
                output_type="latent",
            ).images
        return self.decode_latents(self.unpack(packed, *start.shape[-2:]))


def _mend(dtype: torch.dtype) -> str:
    """Say what to do about numbers that are not finite; there is no wider format than float32."""
    damaged = "its weights, or those of the persona, are damaged: fetch or train them again."
    return damaged.capitalize() if dtype == torch.float32 else f"Give --precision fp32 where it can be; else {damaged}"


def has(module: nn.Module, targets: Iterable[str]) -> bool:
    """Tell whether there is a module in it that any of these names, as targets do, by the end of its own."""
    return any(f".{name}".endswith(f".{target}") for name, _ in module.named_modules() for target in targets)


def release() -> None:
    """Give back what nothing refers to any more, not even itself, as networks with hooks that put them aside do."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
