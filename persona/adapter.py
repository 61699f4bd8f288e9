"""The few weights that learn: attached to a frozen base by peft, and kept in one safetensors file.

The file's keys are those that diffusers reads (``unet.<module>.lora_A.weight``); its metadata says how the adapter was
made, so that loading needs nothing else. A base may carry several adapters under different names; what they add up to
is the sum of their products ``B A``, each times its strength. A dora multiplies as well, and adds up with no other.
"""

import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, OFTConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.integrations import dequantize_module_weight
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from persona.errors import BadOption, BadPersona
from persona.families import Family
from persona.families.family import has

NAME = "persona"
"""What peft calls the adapter where there is only one."""

_MAKE = "persona"  # key of the metadata that says how the adapter was made
_LORA = ("lora", "dora", "rslora")


@dataclass(frozen=True, kw_only=True)
class Make:
    """How an adapter is made.

    Attributes:
        kind: lora (Hu et al., 2106.09685), dora (2402.09353), rslora (2312.03732), loha (2108.06098),
            lokr (2212.10650) or oft (2306.07280).
        rank: of each product of two factors; of oft, the side of its rotated blocks.
        alpha: the product counts ``alpha / rank`` (rslora: ``alpha / sqrt(rank)``); oft has none.
        targets: modules of the denoiser, by the end of their names.
        text_targets: modules of the text encoders; none leaves them as they are.
        ranks: of single modules by component and path (``unet.down_blocks...``), each with an alpha as large; where
            there are any, these are adapted and no others.
    """

    kind: str = "lora"
    rank: int
    alpha: float
    targets: tuple[str, ...]
    text_targets: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)

    def scale(self, module: str) -> float:
        """Return what the product of a module's factors counts, in a lora or rslora."""
        if module in self.ranks:
            return 1.0
        return self.alpha / (math.sqrt(self.rank) if self.kind == "rslora" else self.rank)


def attach(base: Family, make: Make, *, seed: int = 0, name: str = NAME) -> dict[str, list[nn.Parameter]]:
    """Add an untrained adapter: the base predicts exactly what it did before.

    In bf16 oft does so to rounding only, and on a GPU dora too.

    Args:
        base: gets the adapter beside those that it may have.
        make: what kind, how large and where.
        seed: of the random factors.
        name: what to call it; no number, which would look like the name of a module.

    Returns:
        The float32 parameters to train, by the component of the pipeline that they sit in, the denoiser first.

    Raises:
        BadOption: the denoiser has no module of those names, or one that cannot be adapted.
    """
    parts = {key: (module, _targets(base, make, key)) for key, module in _parts(base).items()}
    found = {key: part for key, part in parts.items() if has(*part)}
    if base.denoiser_name not in found:
        raise BadOption(f"{base.name} has no module named {', '.join(make.targets)}. Leave --target out.")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are what is wanted
        torch.manual_seed(seed)
        for module, targets in found.values():
            try:
                inject_adapter_in_model(_config(make, targets), module, adapter_name=name)
            except (ValueError, TypeError) as error:  # peft raises either at a module that has no weight to adapt
                told = f"--target {', '.join(make.targets)} names what cannot be adapted"
                raise BadOption(f"{told}: name layers, such as to_q or to_out.0.") from error
            module.peft_config[name].persona = make
    for layer in _layers(base):
        layer.set_adapter(list(base.denoiser.peft_config))
        # Forward passes in bf16 run under autocast: casting their input to float32 first would only cost a copy.
        layer.cast_input_dtype_enabled = base.dtype == torch.float32
        layer.eval()  # there is no dropout, for which loha and lokr would draw a number at each pass
    parameters = {
        key: [p for path, p in module.named_parameters() if p.requires_grad and f".{name}." in f"{path}."]
        for key, (module, _) in found.items()
    }
    for parameter in (p for part in parameters.values() for p in part):
        parameter.data = parameter.data.float()
    return parameters


def _targets(base: Family, make: Make, component: str) -> dict[str, int | None]:
    """Return the names of the modules of a component that are adapted, with their own ranks where they have such."""
    if make.ranks:
        return {path.partition(".")[2]: rank for path, rank in make.ranks.items() if _of(path, component)}
    return dict.fromkeys(make.targets if component == base.denoiser_name else make.text_targets)


def _config(make: Make, targets: Mapping[str, int | None]) -> PeftConfig:
    where = {"target_modules": "|".join(map(re.escape, targets)) if make.ranks else list(targets)}
    match make.kind:
        case "loha":
            return LoHaConfig(r=make.rank, alpha=make.alpha, **where)
        case "lokr":
            return LoKrConfig(r=make.rank, alpha=make.alpha, **where)
        case "oft":
            return OFTConfig(r=0, oft_block_size=make.rank, **where)
        case kind:
            variant = {"use_dora": kind == "dora", "use_rslora": kind == "rslora"}
            own = _patterns(targets)
            return LoraConfig(
                r=make.rank, lora_alpha=make.alpha, rank_pattern=own, alpha_pattern=own, **variant, **where
            )


def _patterns(targets: Mapping[str, int | None]) -> dict[str, int]:
    """Return ranks of single modules as peft takes them, by one pattern for all modules of a rank.

    It tries each pattern at each module, and Python keeps but 512 compiled: one for each module would take minutes.
    """
    paths: dict[int, list[str]] = {}
    for path, rank in targets.items():
        if rank is not None:
            paths.setdefault(rank, []).append(re.escape(path))
    return {f"^(?:{'|'.join(those)})": rank for rank, those in paths.items()}


def save(base: Family, *, name: str = NAME) -> bytes:
    """Return an adapter as the bytes of a safetensors file; its tensors are exactly the adapter's."""
    weights: dict[str, Tensor] = {}
    configs: dict[str, Any] = {}
    make: Make = base.denoiser.peft_config[name].persona
    for key, module in _adapted(base, name).items():
        state = get_peft_model_state_dict(module, adapter_name=name)
        weights |= {f"{key}.{weight}": value.detach().cpu().clone() for weight, value in state.items()}
        configs |= {f"{key}.{field}": value for field, value in module.peft_config[name].to_dict().items()}
    # Without this diffusers, which knows no kinds but these, would take alpha for the rank; only its sets are not JSON.
    others = {"lora_adapter_metadata": json.dumps(configs, default=sorted)} if make.kind in _LORA else {}
    return pack(make, weights, others)


def pack(make: Make, weights: Mapping[str, Tensor], others: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of an adapter's file: its tensors by ``<component>.<module>.<factor>.weight``, and its make.

    Args:
        make: how it is made.
        weights: its tensors.
        others: further metadata.
    """
    return to_bytes(dict(weights), {"format": "pt", _MAKE: json.dumps(asdict(make)), **(others or {})})


def load(base: Family, path: Path, *, name: str = NAME) -> dict[str, list[nn.Parameter]]:
    """Attach an adapter that was saved, beside those that the base may have, and return its parameters.

    Raises:
        BadPersona: the file is damaged, is no safetensors, was not written here, or was made for another base. The
            base stays as it was.
    """
    make, weights = read(path)
    parameters = attach(base, make, name=name)
    for key, module in _adapted(base, name).items():
        state = {weight.removeprefix(f"{key}."): weights.pop(weight) for weight in list(weights) if _of(weight, key)}
        wanted = get_peft_model_state_dict(module, adapter_name=name)
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
            detach(base, name=name)
            raise BadPersona(f"{path} was made for another base than {base.name}. Give the one that it was made for.")
        set_peft_model_state_dict(module, state, adapter_name=name)
    if weights:
        detach(base, name=name)
        raise BadPersona(
            f"{path} adapts {next(iter(weights))}, which {base.name} does not have. Give the base that it was made for."
        )
    return parameters


def read(path: Path) -> tuple[Make, dict[str, Tensor]]:
    """Return how an adapter that was saved is made, and its tensors.

    Raises:
        BadPersona: the file is damaged, is no safetensors, or was not written here.
    """
    try:
        with safe_open(path, "pt") as file:
            made: dict[str, Any] = json.loads((file.metadata() or {})[_MAKE])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # it is no mapping
        for targets in ("targets", "text_targets"):
            made[targets] = tuple(made[targets])
        return Make(**made), weights
    except (OSError, SafetensorError) as error:
        raise BadPersona(f"{path} cannot be read: it is missing, damaged or no safetensors file.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadPersona(f"{path} does not say how it was made. Take an adapter that persona has written.") from error


def scale(base: Family, strength: float | Mapping[str, float]) -> None:
    """Set how much adapters count.

    Args:
        base: carries them.
        strength: of the one adapter, or of each by name; 0 takes an adapter out, so that the base alone is exact.

    Raises:
        BadOption: an oft adapter is neither 0 nor 1: it rotates, and half a rotation is not defined. Or a dora and
            another one count at once.
    """
    strengths = strength if isinstance(strength, Mapping) else {NAME: strength}
    kinds = {name: base.denoiser.peft_config[name].persona.kind for name in strengths}
    if any(kinds[name] == "oft" and value not in (0, 1) for name, value in strengths.items()):
        raise BadOption("An oft adapter can only be on or off: give --scale 1 or 0, or --frames 2 to interpolate.")
    active = [name for name, value in strengths.items() if value]
    if len(active) > 1 and "dora" in map(kinds.get, active):
        raise BadOption("A dora adapter does not add up with another: give --frames 2, or train both as lora.")
    for layer in _layers(base):
        layer.enable_adapters(enabled=bool(active))
        if active:
            layer.set_adapter(active)
        for name in active:
            if kinds[name] != "oft":
                layer.set_scale(name, strengths[name])
            if kinds[name] == "dora" and name in getattr(layer, "lora_magnitude_vector", ()):
                _stretch(layer, layer.lora_magnitude_vector[name], strengths[name])


@torch.no_grad()
def _stretch(layer: Any, magnitude: Any, strength: float) -> None:
    """Let the lengths of a layer's weights go from its own, at 0, to those that a dora has learnt, at 1.

    peft scales the product alone: the learnt lengths would count in full at any strength but 0.
    """
    if not hasattr(magnitude, "learnt"):  # once: series set a strength for each frame, and all weights are read here
        own = magnitude.get_weight_norm(dequantize_module_weight(layer.get_base_layer()).float(), 0, 0)
        magnitude.register_buffer("own", own, persistent=False)
        magnitude.register_buffer("learnt", magnitude.weight.clone(), persistent=False)
    magnitude.weight.copy_(magnitude.own.lerp(magnitude.learnt, strength))


@contextmanager
def off(base: Family) -> Iterator[None]:
    """Let the base predict as it did without its adapters, which learn nothing meanwhile."""
    layers = list(_layers(base))
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)


@torch.no_grad()
def merge(base: Family) -> None:
    """Add an adapter to the base's weights for good, as strongly as it counts now; the layers are the base's own again.

    Each weight is added up in float32 and rounded once to the format that it is kept in.
    """
    for layer in _layers(base):
        own = layer.get_base_layer()
        kept = own.weight.dtype
        own.float()
        layer.merge(adapter_names=[NAME])
        own.to(kept)
    detach(base)


def detach(base: Family, *, name: str = NAME) -> None:
    """Take an adapter away; with the last one, the layers are those of the base again."""
    for module in _adapted(base, name).values():
        del module.peft_config[name]
        for path, layer in list(module.named_modules()):
            if isinstance(layer, BaseTunerLayer):
                layer.set_adapter([other for other in layer.active_adapters if other != name])
                layer.delete_adapter(name)
                if not module.peft_config:
                    module.set_submodule(path, layer.get_base_layer())
        if not module.peft_config:
            del module.peft_config


def _of(weight: str, component: str) -> bool:
    return weight.startswith(f"{component}.")


def _parts(base: Family) -> dict[str, Any]:
    """Return the components that can carry an adapter, the denoiser first."""
    return {base.denoiser_name: base.denoiser, **base.text_encoders}


def _adapted(base: Family, name: str) -> dict[str, Any]:
    """Return the components that carry an adapter."""
    return {key: part for key, part in _parts(base).items() if name in getattr(part, "peft_config", {})}


def _layers(base: Family) -> Iterator[Any]:
    for part in _parts(base).values():
        yield from (module for module in part.modules() if isinstance(module, BaseTunerLayer))
