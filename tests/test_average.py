import pytest
import torch
from torch import nn
from torch.optim import SGD

from persona.train.average import EXPONENT, Average


@pytest.mark.parametrize("steps", [1, 2, 30])
def test_steps_count_by_the_power_of_their_number(steps: int) -> None:
    parameter = nn.Parameter(torch.full((3,), 100.0))
    average = Average(SGD([parameter]))
    for step in range(1, steps + 1):
        parameter.data.fill_(step)
        average.update(step)
    number = torch.arange(1, steps + 1, dtype=torch.float64)
    share = number ** (EXPONENT + 1) - (number - 1) ** (EXPONENT + 1)
    with average.worn():
        assert parameter[0].item() == pytest.approx((share * number).sum().item() / steps ** (EXPONENT + 1), rel=1e-5)


@pytest.mark.parametrize("steps", [60, 300])
def test_half_of_the_average_is_of_the_last_sixth(steps: int) -> None:
    """As README says."""
    parameter = nn.Parameter(torch.zeros(1))
    average = Average(SGD([parameter]))
    for step in range(1, steps + 1):
        parameter.data.fill_(float(step > steps * 5 / 6))
        average.update(step)
    with average.worn():
        assert parameter.item() == pytest.approx(0.5, abs=0.03)


def test_what_is_averaged_has_its_own_values_again() -> None:
    parameters = [nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(2, 3))]
    average = Average(SGD(parameters))
    before = [parameter.detach().clone() for parameter in parameters]
    for parameter in parameters:
        parameter.data.add_(1)
    own = [parameter.detach().clone() for parameter in parameters]

    def broken_off() -> None:
        with average.worn():
            assert all(torch.equal(*pair) for pair in zip(parameters, before, strict=True))
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            broken_off()
        assert all(torch.equal(*pair) for pair in zip(parameters, own, strict=True))
