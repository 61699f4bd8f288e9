"""Linear layers in 4 and 8 bits, and the bases that are made of them."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bases
import matrix
import pytest
import torch
from torch import nn

from persona import adapter, families
from persona.errors import BadOption
from persona.families.packed import Bits, PackedLinear, check, pack
from persona.train.ledger import Ledger

Folder = Callable[[str], Path]
BOTH = pytest.mark.parametrize("bits", ["nf4", "int8"])
CPU = torch.device("cpu")


def linear(width: int, height: int, dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(width, height, bias=bias, dtype=dtype).requires_grad_(requires_grad=False)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (16, 32), (130, 7), (6, 10)])
def test_weights_come_back_nearly_as_they_were(bits: Bits, dtype: torch.dtype, width: int, height: int) -> None:
    layer = linear(width, height, dtype)
    packed = PackedLinear(layer, bits)
    wrong = (packed.weight.float() - layer.weight.float()).norm() / layer.weight.float().norm()
    assert packed.weight.dtype == dtype
    assert wrong < (0.12 if bits == "nf4" else 0.01)
    assert packed.packed.nbytes <= (width * height + 1) * (0.5 if bits == "nf4" else 1)


@BOTH
def test_zeros_stay_zeros(bits: Bits) -> None:
    layer = linear(64, 4)
    layer.weight.zero_()
    assert torch.equal(PackedLinear(layer, bits).weight, layer.weight)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_gradients_are_those_of_the_unpacked_weights(bits: Bits, dtype: torch.dtype) -> None:
    packed = PackedLinear(linear(48, 20, dtype), bits)
    plain = linear(48, 20, dtype)
    plain.weight.copy_(packed.weight)
    assert packed.bias is not None
    plain.bias.copy_(packed.bias)
    given = [torch.randn(3, 5, 48, dtype=dtype, requires_grad=True) for _ in range(2)]
    given[1].data.copy_(given[0].data)
    made = [layer(one) for layer, one in zip((packed, plain), given, strict=True)]
    assert torch.equal(*made)
    for one in made:
        torch.autograd.backward(one.square().sum())
    torch.testing.assert_close(given[0].grad, given[1].grad)


@BOTH
def test_nothing_unpacked_is_kept_for_the_backward_pass(bits: Bits) -> None:
    with Ledger() as ledger:
        packed = PackedLinear(linear(256, 256), bits)
        x = torch.randn(2, 256, requires_grad=True)
        before = ledger.held
        loss = packed(x).sum()
        assert ledger.held - before < 256 * 256
        torch.autograd.backward(loss)


@BOTH
def test_layers_can_be_used_without_a_gradient_and_then_with_one(bits: Bits) -> None:
    packed = PackedLinear(linear(64, 64, torch.bfloat16), bits).eval()
    with torch.no_grad():
        before = packed(torch.ones(1, 64, dtype=torch.bfloat16))
    x = torch.ones(1, 64, dtype=torch.bfloat16, requires_grad=True)
    assert torch.equal(packed(x), before)
    torch.autograd.backward(packed(x).sum())
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_a_network_keeps_what_is_no_linear_layer() -> None:
    inner = nn.Sequential(nn.Conv1d(1, 1, 1), linear(8, 64))
    network = nn.Sequential(linear(64, 8), inner)
    given = torch.randn(1, 64)
    before = network[0](given)
    pack(network, "int8", CPU)
    assert [type(part) for part in (network[0], inner[0], inner[1])] == [
        PackedLinear,
        nn.Conv1d,
        PackedLinear,
    ]
    torch.testing.assert_close(network[0](given), before, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("bits", "dtype", "name"), matrix.sparse(5, ["nf4", "int8"], [torch.float32, torch.bfloat16], bases.BASES)
)
def test_a_packed_base_is_nearly_the_same(base_folder: Folder, name: str, bits: Bits, dtype: torch.dtype) -> None:
    whole, packed = (families.load(str(base_folder(name)), dtype=dtype, device="cpu", bits=b) for b in (None, bits))
    assert packed.hash == whole.hash
    assert packed.dtype == whole.dtype
    noisy, times = torch.randn(2, whole.pipe.vae.config.latent_channels, 8, 8), torch.tensor([10, 700])
    with torch.no_grad():
        exact, near = (base.predict(noisy, times, base.encode_prompts(["a dog", "a cat"])) for base in (whole, packed))
    assert not torch.equal(exact, near)
    assert (near - exact).std() < 0.5 * exact.std()
    assert packed.draw(["a dog"], [1], size=(packed.granularity * 4,) * 2)


@BOTH
@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "loha", "lokr", "oft"])
def test_an_untrained_adapter_of_any_kind_changes_nothing_and_can_learn(
    base_folder: Folder, bits: Bits, kind: str
) -> None:
    base = families.load(str(base_folder("sd-eps")), device="cpu", bits=bits)
    noisy, times, told = torch.randn(1, 4, 8, 8), torch.tensor([10]), base.encode_prompts(["a dog"])
    before = base.predict(noisy, times, told)
    learning = adapter.attach(base, adapter.Make(kind=kind, rank=4, alpha=4.0, targets=base.recipe.targets))
    after = base.predict(noisy, times, told)
    torch.testing.assert_close(after, before)
    torch.autograd.backward(after.square().sum())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learning["unet"])


def test_where_it_cannot_be_done_it_is_refused(monkeypatch: pytest.MonkeyPatch, base_folder: Folder) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(BadOption, match="--quantize nf4") as refusal:
        families.load(str(base_folder("sd-eps")), device="cpu", bits="nf4")
    assert len(str(refusal.value).splitlines()) == 1
    check("int8", CPU)  # which asks nobody


def test_idle_networks_make_room_for_the_next_that_is_packed(
    base_folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    move = nn.Module.to

    def to(network: nn.Module, *where: Any, **how: Any) -> Any:
        done.append(f"to {where[0] if where else how}")
        return move(network, *where, **how)

    def noted(network: nn.Module, bits: Bits, device: torch.device) -> None:
        done.append("packed")

    monkeypatch.setattr(families, "pack", noted)
    monkeypatch.setattr(nn.Module, "to", to)
    families.load(str(base_folder("sdxl")), device="cpu", bits="nf4", offload=True)
    first = done.index("packed")
    assert done[first : first + 6] == ["packed", "to cpu"] * 3
