"""A training that is rehearsed: each stage of it once, with networks of their real sizes, to see what memory it takes.

Nothing is estimated: the code is that of a training. Its tensors have shapes but no data, so that no weights are needed
and nothing is computed; with data, it is what this is checked against.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from persona import adapter, identity
from persona.config import TrainConfig
from persona.drawing import size_of
from persona.events import silent
from persona.families import Conditioning, Family
from persona.families.attention import choose_kernels
from persona.families.outline import refill
from persona.families.packed import pack
from persona.methods.dreambooth import Draw, DreamBooth, Example, Half, without
from persona.methods.settings import Settings
from persona.score import SEEDS
from persona.train.average import Average
from persona.train.ledger import Ledger
from persona.train.loop import EIGHT_BITS, make_optimizer, steps

LOADING, PICTURES, PROMPTS = "loading", "encoding images", "encoding prompts"
DRAWING, TRAINING, PREVIEWS = "drawing", "training", "drawing previews"

Stage = Callable[[str], AbstractContextManager[None]]
"""Entered with the name of each stage while it lasts."""
Move = Callable[[nn.Module, bool], None]
"""Called with a network and ``True`` before it is used, and with ``False`` once it is idle."""

_EXACT = ("layer_norm", "group_norm", "rms_norm", "softmax")
"""What autocast computes in float32 on a GPU but not on a CPU; of its list, those that meet large tensors here."""
_PASSES = 2
"""From so many on, once there are gradients to add to, every pass of a step takes the same memory."""
_SUBJECT, _CLASS = "a sks dog", "a dog"
_ALONE: Any = SimpleNamespace(num_processes=1, process_index=0)


@dataclass(frozen=True)
class Rehearsal:
    """What a training was seen to take.

    Attributes:
        stages: bytes on the device at once at most, by stage.
        loaded: bytes of the weights as they are loaded, before they are packed.
        parameters: how many numbers are trained.
        operations: floating-point operations of a step.
    """

    stages: Mapping[str, int]
    loaded: int
    parameters: int
    operations: int

    @property
    def adapter(self) -> int:
        """Bytes of the file that they make."""
        return 4 * self.parameters

    @property
    def worst(self) -> str:
        """The stage that takes the most."""
        return max(self.stages, key=self.stages.__getitem__)

    @property
    def most(self) -> int:
        """The bytes that it takes."""
        return self.stages[self.worst]


def rehearse(
    base: Family, config: TrainConfig, settings: Settings, *, photos: int, dtype: torch.dtype, device: str
) -> Rehearsal:
    """Rehearse a training without data.

    Args:
        base: without weights, as :func:`persona.families.outline` returns it; it is used up.
        config: what is trained, and how.
        settings: the same with nothing left open.
        photos: how many there are.
        dtype: number format of the frozen weights.
        device: type of the device whose kernels and number formats are taken.
    """

    def move(network: nn.Module, there: bool) -> None:
        where = "cpu" if there else "meta"
        refill(network, lambda one: torch.empty_like(one, device=where))
        if network is base.denoiser:
            choose_kernels(network, torch.device(device))

    if device not in EIGHT_BITS:  # the optimizer looks where the parameters are, which is the CPU here
        settings = replace(settings, optimizer="adamw")
    for network in networks(base).values():
        refill(network, lambda one: torch.empty_like(one, device="meta"))
    loaded, parameters = prepare(base, config, settings, dtype)
    passes, settings = settings.accumulate, replace(settings, accumulate=min(settings.accumulate, _PASSES))
    ledger, stages = Ledger(), dict[str, tuple[int, int]]()
    with FakeTensorMode(allow_non_fake_inputs=True), _like(device), ledger:
        perform(base, config, settings, photos, lambda name: ledger.stage(stages, name), move)
    taken = {name: most for name, (most, _) in stages.items()}
    return Rehearsal(taken, loaded, parameters, operations=stages[TRAINING][1] * passes // settings.accumulate)


def networks(base: Family) -> dict[str, nn.Module]:
    """Return the networks of a base by their names in its pipeline."""
    return {name: part for name, part in base.pipe.components.items() if isinstance(part, nn.Module)}


def prepare(base: Family, config: TrainConfig, settings: Settings, dtype: torch.dtype) -> tuple[int, int]:
    """Give the networks of a base their number formats and the adapter, as loading and attaching do.

    Returns:
        Bytes of the weights before they are packed, and how many numbers are trained.
    """
    formats, loaded = base.formats(base.folder, dtype), 0
    for name, network in networks(base).items():
        nn.Module.to(network, formats.get(name, formats["default"]))  # diffusers' own warns of what it leaves out
        loaded += sum(weights.nbytes for weights in network.parameters())
        if settings.quantize != "none" and network is not base.pipe.vae:
            pack(network, settings.quantize, next(network.parameters()).device)
    base.dtype = dtype
    learning = adapter.attach(base, settings.make(config, base))
    if settings.gradient_checkpointing:
        base.denoiser.enable_gradient_checkpointing()
    if settings.tiling:
        base.tile()
    return loaded, sum(parameter.numel() for part in learning.values() for parameter in part)


def perform(base: Family, config: TrainConfig, settings: Settings, photos: int, stage: Stage, move: Move) -> None:
    """Go through the stages of a training.

    Args:
        base: prepared.
        config: as for :func:`rehearse`, and so ``settings`` and ``photos``.
        settings: as for :func:`rehearse`.
        photos: as for :func:`rehearse`.
        stage: notes what each stage takes.
        move: brings networks to the device, and those that are idle away.
    """
    vae, encoders = base.pipe.vae, list(base.text_encoders.values())
    idle = settings.offload
    side, _ = size = size_of(base, settings.resolution)
    most, variants = base.batch_of(size), settings.crops * (2 if config.flip else 1)
    # Pictures of the class, or those that a token is chosen by.
    first = settings.priors if config.prior == "generated" else len(identity.SEEDS)
    drawn, previewed = (min(most, wanted) for wanted in (first, len(SEEDS)))
    latent = torch.zeros(1, vae.config.latent_channels, *[side // base.pipe.vae_scale_factor] * 2)

    with stage(LOADING):
        for network in networks(base).values():
            move(network, not idle)
    with stage(PICTURES), _awake([vae] if idle else [], move), torch.no_grad(), base.autocast(vae.dtype):
        vae.encode(torch.zeros(min(most, variants), 3, side, side, dtype=vae.dtype))
    with stage(PROMPTS), _awake(encoders if idle else [], move), torch.no_grad():
        free = base.free_frozen_text_encoders if settings.text_encoder else base.remember
        free([_SUBJECT, _CLASS, ""])
        told, said = _guided(base, drawn), _guided(base, previewed)
    with stage(DRAWING):
        with _awake([base.denoiser] if idle else [], move):
            _draw(base, latent, told)
        with _awake([vae] if idle else [], move):
            _show(base, latent, drawn)
    base.free_image_encoder()
    if not settings.text_encoder:
        base.free_text_encoders()
    del encoders
    for network in networks(base).values() if idle else ():
        move(network, True)
    with stage(TRAINING):
        halves = _halves(config, settings, [latent.repeat(variants, 1, 1, 1) for _ in range(photos)])
        method, optimizer = _Rehearsed(base, halves, gamma=settings.snr_gamma), _optimizer(base, settings)
        optimizer.step()  # the state is there from the second step on
        average = Average(optimizer)
        how = {"first": 0, "last": 1, "batch": settings.batch, "accumulate": settings.accumulate}
        for step in steps(method, optimizer, _ALONE, **how):
            average.update(step.number)
    with stage(PREVIEWS), average.worn():
        _draw(base, latent, said)
        _show(base, latent, previewed)


@contextmanager
def _awake(parts: Sequence[nn.Module], move: Move) -> Iterator[None]:
    """Have networks on the device that are elsewhere when they are idle."""
    for part in parts:
        move(part, True)
    yield
    for part in parts:
        move(part, False)


def _guided(base: Family, batch: int) -> Conditioning:
    """Return what the denoiser is told of pictures that are drawn, with what guidance leads away from before it."""
    wanted = base.conditioning([_SUBJECT] * batch)
    unwanted = base.unwanted("", wanted)
    return {key: torch.cat([unwanted[key], value]) if unwanted else value for key, value in wanted.items()}


@torch.no_grad()
def _draw(base: Family, latent: Tensor, told: Conditioning) -> None:
    """Take one step of drawing."""
    rows = len(next(iter(told.values())))
    base.predict(latent.repeat(rows, 1, 1, 1), base.noise.times(rows, Generator()), told)


@torch.no_grad()
def _show(base: Family, latent: Tensor, pictures: int) -> None:
    vae = base.pipe.vae
    with base.autocast(vae.dtype):
        vae.decode(latent.repeat(pictures, 1, 1, 1).to(vae.dtype), return_dict=False)


def _halves(config: TrainConfig, settings: Settings, photos: Sequence[Tensor]) -> list[Half]:
    """Return what is learnt from, with the latents of the photos (variants, C, h, w)."""
    subject = [Example(latents, _SUBJECT) for latents in photos]
    if config.prior == "none":
        return [Half(subject)]
    if config.prior == "self":
        return [Half(subject), Half(without("sks", "dog", subject), taught=True)]
    return [Half(subject), Half([Example(photos[0][:1].clone(), _CLASS) for _ in range(settings.priors)])]


def _optimizer(base: Family, settings: Settings) -> Optimizer:
    parts = {base.denoiser_name: base.denoiser, **base.text_encoders}
    learning = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    rates = settings.rates(base, {name: part for name, part in learning.items() if part})
    with unset_fake_temporarily():  # bitsandbytes reads from tables of its own, and would not be taken without data
        return make_optimizer(settings.optimizer, rates, silent)


class _Rehearsed(DreamBooth):
    """Draws what is learnt from as always: numbers that decide something must have a value."""

    def draws(self, slots: Sequence[int]) -> list[Draw]:
        with unset_fake_temporarily():
            return super().draws(slots)


@contextmanager
def _like(device: str) -> Iterator[None]:
    """Compute as on a device of that type: tensors without data are all on the CPU here."""
    with ExitStack() as stack:
        if device == "mps":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # it has no other
        for name in _EXACT if device != "cpu" else ():
            usual = getattr(functional, name)
            stack.callback(setattr, functional, name, usual)
            setattr(functional, name, partial(_exactly, usual))
        yield


def _exactly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function as autocast does where it lists it under float32."""
    if torch.is_autocast_enabled("cpu"):
        args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
    return function(*args, **kwargs)
