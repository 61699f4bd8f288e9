import json
from collections.abc import Callable
from pathlib import Path

import bases
import matrix
import personas
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load as from_bytes
from safetensors.torch import save_file
from torch import Tensor

from persona import adapter, families
from persona.errors import BadOption, BadPersona
from persona.families import Family

Folder = Callable[[str], Path]
KINDS = ("lora", "dora", "rslora", "loha", "lokr", "oft")
EACH = pytest.mark.parametrize("kind", KINDS)
ALL = pytest.mark.parametrize("name", sorted(bases.BASES))


def load(folder: Folder, name: str = "sd-eps", dtype: torch.dtype = torch.float32) -> Family:
    return families.load(str(folder(name)), dtype=dtype, device="cpu")


def make(base: Family, kind: str = "lora", **other: object) -> adapter.Make:
    settings = {"rank": 4, "alpha": 8.0, "targets": base.recipe.targets, "text_targets": base.text_targets, **other}
    return adapter.Make(kind=kind, **settings)  # type: ignore[arg-type]


def said(base: Family, prompts: tuple[str, ...] = ("a sks dog", "a dog")) -> Tensor:
    channels = base.pipe.vae.config.latent_channels
    noisy = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return base.predict(noisy, torch.tensor([10, 700]), base.encode_prompts(prompts))


def disturb(parameters: dict[str, list[torch.nn.Parameter]], seed: int = 1) -> None:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (p for part in parameters.values() for p in part):
            parameter.add_(torch.randn(parameter.shape, generator=random) * 0.05)


@pytest.mark.parametrize(
    ("name", "kind", "dtype"), matrix.sparse(5, bases.BASES, KINDS, [torch.float32, torch.bfloat16])
)
def test_an_untrained_adapter_changes_nothing(base_folder: Folder, name: str, kind: str, dtype: torch.dtype) -> None:
    base = load(base_folder, name, dtype)
    before = said(base)
    parameters = adapter.attach(base, make(base, kind))
    if kind == "oft" and dtype == torch.bfloat16:  # it hands the layers a copy, which may go through another kernel
        torch.testing.assert_close(said(base), before, rtol=0.02, atol=0.02)
    else:
        assert torch.equal(said(base), before)
    assert base.denoiser_name in parameters
    assert set(parameters) - {base.denoiser_name} <= set(base.text_encoders)
    assert {p.dtype for part in parameters.values() for p in part} == {torch.float32}
    learning = sum(p.requires_grad for p in base.denoiser.parameters())
    assert learning == len(parameters[base.denoiser_name])


@EACH
def test_off_is_the_base_again(base_folder: Folder, kind: str) -> None:
    base = load(base_folder)
    before = said(base)
    disturb(adapter.attach(base, make(base, kind)))
    changed = said(base)
    assert not torch.allclose(changed, before)
    with adapter.off(base):
        assert torch.equal(said(base), before)
    assert torch.equal(said(base), changed)


@EACH
@pytest.mark.parametrize("name", ["sd-eps"])
def test_a_saved_adapter_is_read_back_exactly(base_folder: Folder, tmp_path: Path, name: str, kind: str) -> None:
    base = load(base_folder, name)
    disturb(adapter.attach(base, make(base, kind)))
    (tmp_path / "a.safetensors").write_bytes(adapter.save(base))
    again = load(base_folder, name)
    adapter.load(again, tmp_path / "a.safetensors")
    assert torch.equal(said(again), said(base))


@EACH
def test_scale_goes_from_the_base_to_the_subject(base_folder: Folder, kind: str) -> None:
    base = load(base_folder)
    before = said(base)
    disturb(adapter.attach(base, make(base, kind)))
    changed = said(base)
    adapter.scale(base, 0)
    assert torch.equal(said(base), before)
    if kind == "oft":
        with pytest.raises(BadOption, match="on or off"):
            adapter.scale(base, 0.5)
    else:
        adapter.scale(base, 0.5)
        assert 0 < (said(base) - before).norm() < (changed - before).norm()
    adapter.scale(base, 1)
    assert torch.equal(said(base), changed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dora_grows_out_of_the_base_without_a_leap(base_folder: Folder, dtype: torch.dtype) -> None:
    """Its learnt lengths of weights are as strong as its product."""
    base = load(base_folder, dtype=dtype)
    before = said(base)
    disturb(adapter.attach(base, make(base, "dora")))
    changed, saved = said(base), from_bytes(adapter.save(base))
    apart = []
    for strength in (0.01, 0.5, 0.99, 1.5):
        adapter.scale(base, strength)
        apart.append((said(base) - before).norm() / (changed - before).norm())
    small = 0.03 if dtype == torch.float32 else 0.2
    assert apart[0] < small
    assert 0.3 < apart[1] < 0.7
    assert apart[2] == pytest.approx(1, abs=small)
    assert apart[3] > 1.2
    adapter.scale(base, 1)
    assert torch.equal(said(base), changed)
    assert all(torch.equal(saved[key], value) for key, value in from_bytes(adapter.save(base)).items())


@pytest.mark.parametrize("other", ["dora", "lora"])
def test_a_dora_does_not_add_up_with_another(base_folder: Folder, other: str) -> None:
    base = load(base_folder)
    for name, kind in (("one", "dora"), ("two", other)):
        adapter.attach(base, make(base, kind), name=name)
    adapter.scale(base, {"one": 1, "two": 0})
    adapter.scale(base, {"one": 0, "two": 1})
    with pytest.raises(BadOption, match="does not add up with another"):
        adapter.scale(base, {"one": 0.5, "two": 0.5})


def test_several_adapters_add_up_as_products(base_folder: Folder, tmp_path: Path) -> None:
    base = load(base_folder)
    weights = []
    for seed, name in enumerate(("one", "two")):
        trained = load(base_folder)
        disturb(adapter.attach(trained, make(trained)), seed)
        (tmp_path / f"{name}.safetensors").write_bytes(adapter.save(trained))
        weights.append(personas.added(trained))
        adapter.load(base, tmp_path / f"{name}.safetensors", name=name)
    adapter.scale(base, {"one": 0.25, "two": 0.75})
    by_hand = load(base_folder)
    modules = {f"unet.{name}": part for name, part in by_hand.denoiser.named_modules()}
    modules |= {f"text_encoder.{name}": part for name, part in by_hand.text_encoders["text_encoder"].named_modules()}
    with torch.no_grad():
        for name, one in weights[0].items():
            modules[name].weight += 0.25 * one + 0.75 * weights[1][name]
    torch.testing.assert_close(said(base), said(by_hand), rtol=1e-4, atol=1e-5)


def test_modules_of_one_rank_share_a_pattern(base_folder: Folder) -> None:
    """One for each module would take minutes on a large base."""
    base = load(base_folder)
    attention = [name for name, _ in base.denoiser.named_modules() if name.endswith(("to_q", "to_k"))]
    ranks = {f"unet.{name}": 1 + number % 3 for number, name in enumerate(attention)}
    adapter.attach(base, make(base, ranks=ranks, rank=3, targets=()))
    assert len(base.denoiser.peft_config[adapter.NAME].rank_pattern) == 3
    factors = {name: len(weight) for name, weight in from_bytes(adapter.save(base)).items() if "lora_A" in name}
    assert factors == {f"{name}.lora_A.weight": rank for name, rank in ranks.items()}


def test_detaching_leaves_no_trace(base_folder: Folder) -> None:
    base = load(base_folder)
    before, modules = said(base), [type(module) for module in base.denoiser.modules()]
    disturb(adapter.attach(base, make(base)))
    disturb(adapter.attach(base, make(base), name="other"))
    adapter.detach(base, name="other")
    assert not torch.equal(said(base), before)
    adapter.detach(base)
    assert torch.equal(said(base), before)
    assert [type(module) for module in base.denoiser.modules()] == modules


@ALL
@pytest.mark.parametrize("kind", ["lora", "rslora"])
def test_diffusers_reads_the_file_as_it_was_meant(base_folder: Folder, tmp_path: Path, name: str, kind: str) -> None:
    base = load(base_folder, name)
    disturb(adapter.attach(base, make(base, kind)))
    (tmp_path / "a.safetensors").write_bytes(adapter.save(base))
    theirs = load(base_folder, name)
    theirs.pipe.load_lora_weights(tmp_path / "a.safetensors")
    torch.testing.assert_close(said(theirs), said(base))


def test_the_seed_decides_the_random_factors(base_folder: Folder) -> None:
    made = []
    for seed in (1, 1, 2):
        base = load(base_folder)
        made.append(torch.cat([p.flatten() for p in adapter.attach(base, make(base), seed=seed)["unet"]]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_unknown_targets_are_refused(base_folder: Folder) -> None:
    base = load(base_folder)
    with pytest.raises(BadOption, match="no_such"):
        adapter.attach(base, make(base, targets=("no_such",)))


@pytest.mark.parametrize(
    ("kind", "target"), [("lora", "to_out"), ("lora", "norm2"), ("lora", "attn1"), ("oft", "ff.net"), ("loha", "attn1")]
)
def test_targets_that_are_no_layers_are_refused(base_folder: Folder, kind: str, target: str) -> None:
    base = load(base_folder)
    with pytest.raises(BadOption, match=rf"^--target {target} names what cannot be adapted: .* to_out\.0\.$"):
        adapter.attach(base, make(base, kind, targets=(target,)))


def a_pickle(path: Path) -> None:
    torch.save(read(path)[0], path)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def a_stranger(path: Path) -> None:
    save_file(read(path)[0], path)


def of_another_shape(path: Path) -> None:
    weights, metadata = read(path)
    key = next(iter(weights))
    save_file(weights | {key: weights[key][:, :-1].contiguous()}, path, metadata)


def with_one_missing(path: Path) -> None:
    weights, metadata = read(path)
    weights.popitem()
    save_file(weights, path, metadata)


def with_one_more(path: Path) -> None:
    weights, metadata = read(path)
    save_file(weights | {"transformer.x.lora_A.weight": torch.zeros(1)}, path, metadata)


def of_unknown_make(path: Path) -> None:
    weights, metadata = read(path)
    save_file(weights, path, metadata | {"persona": json.dumps({"kind": "lora"})})


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return from_bytes(path.read_bytes()), file.metadata()


@pytest.mark.parametrize(
    "harm", [a_pickle, cut_off, a_stranger, of_another_shape, with_one_missing, with_one_more, of_unknown_make]
)
def test_bad_files_are_refused_and_the_base_stays(
    base_folder: Folder, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    base = load(base_folder)
    before = said(base)
    adapter.attach(base, make(base))
    path = tmp_path / "a.safetensors"
    path.write_bytes(adapter.save(base))
    harm(path)
    base = load(base_folder)
    with pytest.raises(BadPersona) as refusal:
        adapter.load(base, path)
    assert len(str(refusal.value).splitlines()) <= 2
    assert torch.equal(said(base), before)
    assert not hasattr(base.denoiser, "peft_config")
