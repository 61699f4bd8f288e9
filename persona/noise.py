"""The two ways in which base models corrupt their training pictures, and what their networks predict.

Symbols as in the papers: ``x`` is a clean latent, ``eps`` standard normal noise, ``t`` the time, ``z`` the noisy
latent.
"""

from typing import Any, Protocol

import torch
from torch import Generator, Tensor


class Process(Protocol):
    """What training asks of a noise process; all of it pure, on the device of its arguments."""

    @classmethod
    def of(cls, scheduler: Any) -> "Process":
        """Return the process that a diffusers scheduler samples from, as its config describes it."""

    def times(self, n: int, generator: Generator) -> Tensor:
        """Draw the times of ``n`` training examples, shape (n,), as the denoiser expects them."""

    def corrupt(self, x: Tensor, eps: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noisy latents and what the network should predict from them, both shaped like ``x``."""

    def weights(self, times: Tensor, gamma: float) -> Tensor:
        """Return the weight of each example's loss, shape (n,); ``gamma`` 0 weighs all alike."""


def _over(values: Tensor, x: Tensor) -> Tensor:
    """Shape one value an example so that it multiplies latents."""
    return values.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def squared_error(said: Tensor, target: Tensor, emphasis: Tensor | None = None) -> Tensor:
    """Return the mean squared error of each row, (rows,), of what a network should have said.

    Args:
        said: (rows, ...).
        target: of the same shape.
        emphasis: how much each place counts, (rows, h, w), for rows (rows, C, h, w); ``None`` if all count alike.
    """
    errors = (said - target).square()
    return (errors if emphasis is None else errors * emphasis[:, None]).flatten(1).mean(1)


class Diffusion:
    """Variance-preserving noise, ``z = sqrt(kept) x + sqrt(1 - kept) eps`` (Ho et al., 2006.11239, eq. 4).

    The network predicts ``eps``, or the velocity ``v = sqrt(kept) eps - sqrt(1 - kept) x`` (Salimans and Ho,
    2202.00512, appendix D).
    """

    def __init__(self, kept: Tensor, *, velocity: bool) -> None:
        """Take the share of signal variance that is left at each time, shape (times,), falling from 1 towards 0."""
        self.kept = kept
        self.velocity = velocity
        self._on = {kept.device: kept}

    @classmethod
    def of(cls, scheduler: Any) -> "Diffusion":
        """Read the schedule from the scheduler's config, zero terminal SNR included.

        Samplers bend the schedule for their own numerics, so it is worked out anew as in training.

        Raises:
            ValueError: the schedule is of another kind, or the network predicts something else than noise or velocity.
        """
        from diffusers import DDPMScheduler

        if "beta_schedule" not in scheduler.config:
            raise ValueError(f"the noise of {type(scheduler).__name__}")
        config = DDPMScheduler.from_config(scheduler.config)
        if config.config.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction type {config.config.prediction_type!r}")
        return cls(config.alphas_cumprod, velocity=config.config.prediction_type == "v_prediction")

    def times(self, n: int, generator: Generator) -> Tensor:
        """Draw ``n`` times evenly, int64, shape (n,)."""
        return torch.randint(len(self.kept), (n,), generator=generator, device=generator.device)

    def corrupt(self, x: Tensor, eps: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``z`` and ``eps`` or ``v``, both shaped like ``x``."""
        kept = self._at(times)
        signal, noise = _over(kept.sqrt(), x), _over((1 - kept).sqrt(), x)
        return signal * x + noise * eps, signal * eps - noise * x if self.velocity else eps

    def weights(self, times: Tensor, gamma: float) -> Tensor:
        """Weigh by min-SNR (Hang et al., 2303.09556, eq. 5): the loss of ``x`` counts ``min(SNR, gamma)``.

        An error of ``eps`` is one of ``x`` divided by ``sqrt(SNR)``, one of ``v`` by ``sqrt(SNR + 1)``, hence:
        ``min(SNR, gamma) / SNR`` and ``min(SNR, gamma) / (SNR + 1)``.
        """
        if not gamma:
            return torch.ones_like(times, dtype=torch.float32)
        kept = self._at(times)
        snr = kept / (1 - kept)
        return snr.clamp(max=gamma) / (snr + 1) if self.velocity else (gamma / snr).clamp(max=1)

    def _at(self, times: Tensor) -> Tensor:
        """Look the times up; each of their devices has its own schedule, so that steps copy nothing."""
        if times.device not in self._on:
            self._on[times.device] = self.kept.to(times.device)
        return self._on[times.device][times]


class Flow:
    """A straight line from picture to noise; the network predicts its direction (Esser et al., 2403.03206, eq. 13)."""

    def __init__(self, steps: int, *, shift: float = 1.0) -> None:
        """Take the time that stands for pure noise, and how far large pictures shift times towards it (eq. 23)."""
        self.steps = steps
        self.shift = shift

    @classmethod
    def of(cls, scheduler: Any) -> "Flow":
        """Read the scheduler's config. A shift that depends on the picture's size is left to the sampler.

        Raises:
            ValueError: the schedule is of another kind.
        """
        config = scheduler.config
        if not {"use_dynamic_shifting", "shift"} <= config.keys():  # DPM's and UniPC's is flow_shift
            raise ValueError(f"the noise of {type(scheduler).__name__}")
        return cls(config.num_train_timesteps, shift=1.0 if config.use_dynamic_shifting else config.shift)

    def times(self, n: int, generator: Generator) -> Tensor:
        """Draw ``n`` logit-normal times (eq. 19), shifted, float32 in (0, steps), shape (n,)."""
        t = torch.randn(n, generator=generator, device=generator.device).sigmoid()
        return self.shift * t / (1 + (self.shift - 1) * t) * self.steps

    def corrupt(self, x: Tensor, eps: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``z = (1 - t) x + t eps`` and ``eps - x``, both shaped like ``x``."""
        t = _over(times / self.steps, x)
        return (1 - t) * x + t * eps, eps - x

    def weights(self, times: Tensor, gamma: float) -> Tensor:
        """Weigh all alike: the logit-normal times are the weighting."""
        return torch.ones_like(times)
