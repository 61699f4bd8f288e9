from typing import Any

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
)
from diffusers.training_utils import compute_snr

from persona.noise import Diffusion, Flow, Process

X, EPS = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusion_is_that_of_diffusers(prediction: str, zero_snr: bool) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr, **SCHEDULE)
    times = torch.tensor([3, 999])
    noisy, target = Diffusion.of(scheduler).corrupt(X, EPS, times)
    wanted = EPS if prediction == "epsilon" else scheduler.get_velocity(X, EPS, times)
    torch.testing.assert_close(noisy, scheduler.add_noise(X, EPS, times))
    torch.testing.assert_close(target, wanted)


def test_samplers_of_the_same_config_are_trained_alike() -> None:
    kept = [Diffusion.of(kind(**SCHEDULE)).kept for kind in (DDPMScheduler, PNDMScheduler, EulerDiscreteScheduler)]
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


@pytest.mark.parametrize(("prediction", "more"), [("epsilon", 0), ("v_prediction", 1)])
def test_min_snr_is_that_of_the_paper(prediction: str, more: int) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction, **SCHEDULE)
    times = torch.tensor([0, 100, 500, 999])
    snr = compute_snr(scheduler, times)
    weights = Diffusion.of(scheduler).weights(times, 5.0)
    torch.testing.assert_close(weights, snr.clamp(max=5) / (snr + more))


def test_min_snr_is_finite_where_there_is_no_signal() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, **SCHEDULE)
    assert Diffusion.of(scheduler).weights(torch.tensor([999]), 5.0).item() == 0


def test_each_device_has_a_schedule_of_its_own() -> None:
    process, times = Diffusion.of(DDPMScheduler()), torch.tensor([1, 999])
    before = process.weights(times, 5.0)
    for _ in range(2):  # as times are drawn on the CPU, and learnt from on a GPU
        assert process.weights(times.to("meta"), 5.0).device.type == "meta"
        assert torch.equal(process.weights(times, 5.0), before)


def test_gamma_zero_weighs_all_alike() -> None:
    assert torch.equal(Diffusion.of(DDPMScheduler()).weights(torch.tensor([1, 999]), 0), torch.ones(2))


def test_other_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="sample"):
        Diffusion.of(DDPMScheduler(prediction_type="sample"))


@pytest.mark.parametrize(
    ("process", "scheduler"),
    [
        (Diffusion, EDMEulerScheduler()),
        (Flow, EulerDiscreteScheduler()),
        (Flow, DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0)),
    ],
)
def test_other_kinds_of_noise_are_refused(process: type[Process], scheduler: Any) -> None:
    with pytest.raises(ValueError, match=type(scheduler).__name__):
        process.of(scheduler)


def test_diffusion_times_are_even() -> None:
    times = Diffusion.of(DDPMScheduler()).times(20_000, torch.Generator().manual_seed(0))
    assert times.min() == 0
    assert times.max() == 999
    assert torch.histc(times.float(), 10, 0, 1000).div(2000).sub(1).abs().max() < 0.1


def test_flow_goes_straight_from_picture_to_noise() -> None:
    flow = Flow(1000)
    for time, wanted in ((0.0, X), (1000.0, EPS), (250.0, 0.75 * X + 0.25 * EPS)):
        noisy, target = flow.corrupt(X, EPS, torch.full((2,), time))
        torch.testing.assert_close(noisy, wanted)
        torch.testing.assert_close(target, EPS - X)


def test_flow_times_are_shifted_as_by_the_scheduler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    plain = Flow(1000).times(5, torch.Generator().manual_seed(0)) / 1000
    shifted = Flow.of(scheduler).times(5, torch.Generator().manual_seed(0)) / 1000
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))


def test_a_shift_by_size_is_left_to_the_sampler() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    assert Flow.of(scheduler).shift == 1
