"""A training that is rehearsed: each stage of it once, with networks of their real sizes, to see what memory it takes.

Nothing is estimated: the code is that of a training. Its tensors have shapes but no data, so that no weights are needed
and nothing is computed; with data, it is what this is checked against.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from persona import adapter
from persona.config import TrainConfig
from persona.events import silent
from persona.families import Conditioning, Family
from persona.families.attention import choose_kernels
from persona.families.packed import pack
from persona.methods.dreambooth import Draw, DreamBooth, Example, Half, without
from persona.methods.settings import Settings
from persona.train.ledger import Ledger
from persona.train.loop import make_optimizer, steps

LOADING, PICTURES, PROMPTS = "loading", "encoding pictures", "encoding prompts"
DRAWING, TRAINING, PREVIEWS = "drawing", "training", "drawing previews"

Stage = Callable[[str], AbstractContextManager[None]]
"""Entered with the name of each stage while it lasts."""
Move = Callable[[nn.Module, bool], None]
"""Called with a network and ``True`` before it is used, and with ``False`` once it is idle."""

_EXACT = (functional.layer_norm, functional.group_norm, functional.softmax, torch.softmax, Tensor.softmax)
"""What autocast computes in float32 on a GPU but not on a CPU; of its list, those that meet large tensors here."""
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
        _place(network, "cpu" if there else "meta")
        if network is base.denoiser and device == "cpu":
            choose_kernels(network)

    for network in networks(base).values():
        network.to("meta")
    loaded, parameters = prepare(base, config, settings, dtype)
    ledger, stages = Ledger(), dict[str, tuple[int, int]]()
    with FakeTensorMode(allow_non_fake_inputs=True), _like(device), ledger:
        perform(base, config, settings, photos, lambda name: ledger.stage(stages, name), move)
    taken = {name: most for name, (most, _) in stages.items()}
    return Rehearsal(taken, loaded, parameters, operations=stages[TRAINING][1])


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
    side = settings.resolution // base.granularity * base.granularity
    batch = base.batch_of((side, side))
    latents = torch.zeros(batch, vae.config.latent_channels, *[side // base.pipe.vae_scale_factor] * 2)

    with stage(LOADING):
        for network in networks(base).values():
            move(network, not idle)
    with stage(PICTURES), _awake([vae] if idle else [], move), torch.no_grad(), base.autocast(vae.dtype):
        vae.encode(torch.zeros(batch, 3, side, side, dtype=vae.dtype))
    with stage(PROMPTS), _awake(encoders if idle else [], move), torch.no_grad():
        if not settings.text_encoder:
            base.remember([_SUBJECT, _CLASS, ""])
        guided = _guided(base, batch)
    with stage(DRAWING):
        with _awake([base.denoiser] if idle else [], move):
            _draw(base, latents, guided)
        with _awake([vae] if idle else [], move):
            _show(base, latents)
    base.free_image_encoder()
    if not settings.text_encoder:
        base.free_text_encoders()
    del encoders
    for network in networks(base).values() if idle else ():
        move(network, True)
    with stage(TRAINING):
        method, optimizer = _learner(base, config, settings, photos, latents)
        if settings.optimizer != "paged-adamw8bit":  # whose state makes room
            optimizer.step()  # the state is there from the second step on
        how = {"first": 0, "last": 1, "batch": settings.batch, "accumulate": settings.accumulate}
        for _ in steps(method, optimizer, _ALONE, **how):
            pass
    with stage(PREVIEWS):
        _draw(base, latents, guided)
        _show(base, latents)


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
def _draw(base: Family, latents: Tensor, guided: Conditioning) -> None:
    """Take one step of drawing."""
    rows = len(next(iter(guided.values())))
    base.predict(latents.repeat(rows // len(latents), 1, 1, 1), base.noise.times(rows, Generator()), guided)


@torch.no_grad()
def _show(base: Family, latents: Tensor) -> None:
    vae = base.pipe.vae
    with base.autocast(vae.dtype):
        vae.decode(latents.to(vae.dtype), return_dict=False)


def _learner(
    base: Family, config: TrainConfig, settings: Settings, photos: int, latents: Tensor
) -> tuple[DreamBooth, Optimizer]:
    """Return what a step of training is made of."""
    variants = settings.crops * (2 if config.flip else 1)
    subject = [Example(latents[:1].repeat(variants, 1, 1, 1), _SUBJECT) for _ in range(photos)]
    if config.prior == "self":
        halves = [Half(subject), Half(without("sks", subject), taught=True)]
    else:
        priors = [Example(latents[:1].clone(), _CLASS) for _ in range(settings.priors)]
        halves = [Half(subject), *([] if config.prior == "none" else [Half(priors)])]
    parts = {base.denoiser_name: base.denoiser, **base.text_encoders}
    learning = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    rates = settings.rates(base, {name: part for name, part in learning.items() if part})
    kind = settings.optimizer.removeprefix("paged-")
    return _Rehearsed(base, halves, gamma=settings.snr_gamma), make_optimizer(kind, rates, silent)


class _Rehearsed(DreamBooth):
    """Draws what is learnt from as always: numbers that decide something must have a value."""

    def draws(self, slots: Sequence[int]) -> list[Draw]:
        with unset_fake_temporarily():
            return super().draws(slots)


def _place(network: nn.Module, device: str) -> None:
    """Put new tensors in the place of a network's own: ``Module.to`` cannot swap those that have no data."""
    for part in network.modules():
        for name, weights in list(part.named_parameters(recurse=False)):
            made = torch.empty_like(weights, device=device)
            part.register_parameter(name, nn.Parameter(made, requires_grad=weights.requires_grad))
        for name, buffer in list(part.named_buffers(recurse=False)):
            part._buffers[name] = torch.empty_like(buffer, device=device)


@contextmanager
def _like(device: str) -> Iterator[None]:
    """Compute as on a device of that type: tensors without data are all on the CPU here."""
    with ExitStack() as stack:
        if device != "cpu":
            stack.enter_context(_Gpu())
        if device == "mps":
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # it has no other
        yield


class _Gpu(TorchFunctionMode):  # type: ignore[misc]  # torch does not type it
    """Lets autocast treat functions as it does on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _EXACT and torch.is_autocast_enabled("cpu"):
            args, kwargs = tree_map_only(Tensor, lambda one: one.float(), (args, kwargs))
        return func(*args, **(kwargs or {}))
