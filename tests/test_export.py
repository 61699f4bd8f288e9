"""What goes out to other programs: they read the weights that were learnt, or they are told why they would not."""

import base64
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bases
import personas
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from persona import exchange, families
from persona.config import ExportConfig, SampleConfig
from persona.errors import BadOption, BadPersona
from persona.exchange.product import difference
from persona.exchange.verifying import CLOSE, check, loaded
from persona.export import DROPPED, export
from persona.families import Family
from persona.folder import Persona
from persona.sample import sample
from persona.sitters import wear

Folder = Callable[[str], Path]
FAMILIES = ("sd-eps", "sdxl", "sd3", "flux")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")


@pytest.fixture
def persona(base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Persona]:
    """Return a function that makes a persona, in a folder where its base is found under the name that it remembers."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, **how: Any) -> Persona:
        Path(name).symlink_to(base_folder(name))
        return personas.make(Path("personas/dog-zwx"), base_folder(name), **{"text_targets": TEXT, **how})

    return make


def exported(made: Persona, **options: Any) -> Path:
    return export(ExportConfig(persona=made.path, **options)).path


def worn(made: Persona) -> Family:
    base = families.load(made.base, device="cpu")
    wear(base, made)
    return base


def said(base: Family) -> Tensor:
    channels = base.pipe.vae.config.latent_channels
    noisy = torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return base.predict(noisy, torch.tensor([10, 700]), base.encode_prompts(["a zwx dog", "a cat"]))


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def pictures(**options: Any) -> list[bytes]:
    drawn = sample(SampleConfig(**{"n": 2, "steps": 2, "prompts": ("a [V] dog",), **options}))
    return [Image.open(picture.path).tobytes() for picture in drawn]


# diffusers cannot read kohya's keys of SD3 at all, and those of FLUX only at its full width; see below.
@pytest.mark.parametrize(
    ("name", "to", "how"),
    [
        *((name, "diffusers", {}) for name in FAMILIES),
        *((name, "comfyui", {}) for name in ("sdxl", "sd3", "flux")),  # of U-Nets it is kohya's file
        *(("sd-eps", to, {"kind": "rslora", "rank": 3, "alpha": 5}) for to in ("diffusers", "kohya")),
    ],
)
def test_the_consumer_adds_what_was_learnt(
    persona: Callable[..., Persona], name: str, to: str, how: dict[str, Any]
) -> None:
    made = persona(name, **how)
    path = exported(made, to=to)
    theirs = families.load(name, device="cpu")
    bare = said(theirs)
    theirs.pipe.load_lora_weights(path)
    ours = said(worn(made))
    torch.testing.assert_close(said(theirs), ours, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, bare, rtol=1e-2, atol=1e-2)
    assert any("text_encoder" in key or "lora_te" in key for key in load_file(path))


@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [
        ("sd3", "joint_blocks_0_x_block_attn_qkv", ["attn.to_q", "attn.to_k", "attn.to_v"]),
        ("sd3", "joint_blocks_1_context_block_attn_qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
        ("sd3", "joint_blocks_0_x_block_attn2_qkv", ["attn2.to_q", "attn2.to_k", "attn2.to_v"]),
        ("flux", "double_blocks_0_txt_attn_qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
        ("flux", "double_blocks_0_img_attn_proj", ["attn.to_out.0"]),
        ("flux", "double_blocks_0_img_mlp_2", ["ff.net.2"]),
        ("flux", "single_blocks_0_linear1", ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]),
    ],
)
def test_kohya_has_the_weights_of_the_authors(
    persona: Callable[..., Persona], name: str, theirs: str, ours: list[str]
) -> None:
    made = persona(name)
    tensors = load_file(exported(made, to="kohya"))
    down, up = (tensors[f"lora_unet_{theirs}.lora_{part}.weight"] for part in ("down", "up"))
    alpha = tensors[f"lora_unet_{theirs}.alpha"]
    base = worn(made)
    learnt = personas.added(base)
    number = next(part for part in theirs.split("_") if part.isdigit())
    block = f"transformer.{'single_' * theirs.startswith('single')}transformer_blocks.{number}"
    parts = [learnt.get(f"{block}.{path}") for path in ours]
    missing = [base.denoiser.get_submodule(f"{block}.{path}".partition(".")[2]) for path in ours]
    whole = [torch.zeros_like(one.weight) if part is None else part for part, one in zip(parts, missing, strict=True)]
    torch.testing.assert_close(alpha / len(down) * up @ down, torch.cat(whole))


def real_flux(folder: Path, tiny: Path) -> Family:
    """Return an outline of FLUX.1 at its full width, with a block of each kind."""
    shutil.copytree(tiny, folder)
    path = folder / "transformer" / "config.json"
    wide = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": [16, 56, 56]}
    path.write_text(json.dumps(json.loads(path.read_text()) | wide))
    return families.outline(str(folder))


def test_diffusers_reads_kohyas_keys_of_flux(base_folder: Folder, tmp_path: Path) -> None:
    base = real_flux(tmp_path / "base", base_folder("flux"))
    layers = {path: layer for path, layer in base.denoiser.named_modules() if isinstance(layer, torch.nn.Linear)}
    products = {
        ("transformer", path): exchange.Product(torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2))
        for path, layer in layers.items()
        if any(path.endswith(target) for target in base.recipe.targets)
    }
    path = tmp_path / "lora.safetensors"
    save_file(exchange.write(products, base, "kohya"), path)
    theirs = loaded(path, base)
    reached = {module: theirs[module] for module in products}
    assert difference(products, reached) < CLOSE
    assert all(not product.up.any() for module, product in theirs.items() if module not in products)  # proj_mlp


@pytest.mark.parametrize("kind", sorted(DROPPED))
def test_what_others_would_drop_is_refused_with_a_reason(persona: Callable[..., Persona], kind: str) -> None:
    made = persona("sd-eps", kind=kind)
    with pytest.raises(BadOption, match="--merge") as refusal:
        exported(made)
    assert kind in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 2
    assert not Path("exports").exists()


@pytest.mark.parametrize("to", ["kohya", "comfyui"])
def test_modules_without_a_name_elsewhere_are_refused(persona: Callable[..., Persona], to: str) -> None:
    made = persona("flux", targets=("to_q", "norm_out.linear"))
    with pytest.raises(BadOption, match=r"norm_out.linear.*--to diffusers"):
        exported(made, to=to)
    assert not list(Path().glob("exports/*"))
    assert exported(made, to="diffusers").is_file()


def test_a_file_that_is_read_otherwise_is_not_kept(
    persona: Callable[..., Persona], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = persona("sd-eps")
    monkeypatch.setattr("persona.exchange.verifying.loaded", lambda path, base: {})
    with pytest.raises(BadOption, match="diffusers would read other weights"):
        exported(made)
    assert list(Path("exports").iterdir()) == []


def test_what_learnt_nothing_may_be_left_out(base_folder: Folder, tmp_path: Path) -> None:
    """The last block of SD3 asks nothing of the prompt, so these factors stay as they were."""
    base = families.outline(str(base_folder("sd3")))
    paths = [f"transformer_blocks.1.attn.add_{one}_proj" for one in "qkv"]
    sizes = base.denoiser.get_submodule(paths[0]).weight.shape
    up, down = torch.randn(sizes[0], 2), torch.randn(2, sizes[1])
    products = {("transformer", path): exchange.Product(down, up) for path in paths}
    products["transformer", paths[0]] = exchange.Product(down, torch.zeros_like(up))
    save_file(exchange.write(products, base, "kohya"), tmp_path / "a.safetensors")
    assert len(exchange.read(tmp_path / "a.safetensors", base)) == 2
    check(tmp_path / "a.safetensors", products, base, "kohya")
    products["transformer", paths[0]] = exchange.Product(down, up)
    with pytest.raises(BadOption, match="other weights"):
        check(tmp_path / "a.safetensors", products, base, "kohya")


def test_a_small_difference_is_found(base_folder: Folder, tmp_path: Path) -> None:
    base = families.outline(str(base_folder("sd-eps")))
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    size = base.denoiser.get_submodule(path).weight.shape[0]
    products = {("unet", path): exchange.Product(torch.randn(2, size), torch.randn(size, 2))}
    tensors = exchange.write(products, base, "kohya")
    save_file(tensors, tmp_path / "same.safetensors")
    check(tmp_path / "same.safetensors", products, base, "kohya")
    name = next(key for key in tensors if key.endswith("lora_up.weight"))
    save_file(tensors | {name: tensors[name] * (1 + 1e-4)}, tmp_path / "other.safetensors")
    with pytest.raises(BadOption, match="other weights"):
        check(tmp_path / "other.safetensors", products, base, "kohya")


@pytest.mark.parametrize("to", ["diffusers", "kohya"])
def test_a_file_says_what_it_is_and_nothing_of_its_maker(persona: Callable[..., Persona], to: str) -> None:
    made = persona("sdxl")
    preview = made.path / "previews/step-000002/a-photo-of-a-v-class-1.png"
    preview.parent.mkdir(parents=True)
    Image.new("RGB", (640, 320), "red").save(preview)
    path = exported(made, to=to)
    facts = metadata(path)
    assert facts["modelspec.sai_model_spec"] == "1.0.1"
    assert facts["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert facts["modelspec.implementation"] == {"diffusers": "diffusers", "kohya": "sgm"}[to]
    assert facts["modelspec.title"] == facts["ss_output_name"] == "dog-zwx"
    assert facts["modelspec.trigger_phrase"] == "zwx dog"
    assert "strength 1" in facts["modelspec.usage_hint"]
    assert facts["modelspec.resolution"] == "32x32"
    assert facts["ss_base_model_version"] == "sdxl_base_v1-0"
    assert (facts["persona.base"], facts["persona.base_hash"], facts["persona.scale"]) == ("sdxl", made.base_hash, "1")
    assert (facts["ss_network_dim"], facts["ss_network_alpha"]) == ("2", "2")
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert facts["modelspec.hash_sha256"] == f"0x{hashlib.sha256(data[start:]).hexdigest()}"
    kind, _, picture = facts["modelspec.thumbnail"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (256, 128)
    assert str(Path.home()) not in str(facts)
    assert str(Path.cwd()) not in str(facts)


def test_names_and_checkpoints_are_found_and_nothing_is_overwritten(persona: Callable[..., Persona]) -> None:
    made = persona("sd-eps")
    first = export(ExportConfig(persona=Path("dog-zwx")))
    second = export(ExportConfig(persona=made.path, checkpoint=1))
    assert (first.path.name, second.path.name) == ("dog-zwx-diffusers.safetensors", "dog-zwx-diffusers-2.safetensors")
    assert (first.trigger, first.strength) == ("zwx dog", 1.0)
    assert metadata(second.path)["persona.step"] == "1"
    assert first.path.read_bytes() != second.path.read_bytes()


@pytest.mark.parametrize("kind", ["lora", *sorted(DROPPED)])
def test_a_merged_base_draws_the_subject_by_itself(persona: Callable[..., Persona], kind: str) -> None:
    made = persona("sd-eps", kind=kind)
    path = exported(made, merge=True)
    assert not list(path.rglob("*.bin"))
    torch.testing.assert_close(said(families.load(str(path), device="cpu")), said(worn(made)), rtol=1e-3, atol=1e-4)
    assert (path / "recipe.json").read_bytes() == Path("sd-eps/recipe.json").read_bytes()


def test_a_merged_base_knows_its_trigger_word(persona: Callable[..., Persona]) -> None:
    """It was warned of in the very command that export recommends."""
    made = persona("sd-eps")
    Path("sd-eps/words.json").write_text('["a", "dog"]')
    merged = families.load(str(exported(made, merge=True)), device="cpu")
    assert merged.unknown_words("a zwx dog runs") == ["runs"]


def formats(folder: Path) -> dict[str, torch.dtype]:
    """Return the number format of each tensor of a pipeline, as it is kept."""
    files = folder.glob("*/*.safetensors")
    return {f"{file.parent.name}.{key}": value.dtype for file in files for key, value in load_file(file).items()}


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_each_family_is_merged_in_the_formats_that_its_parts_have(
    base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    bases.halve(base_folder(name), Path(name), **dict.fromkeys(encoders, torch.float16))
    made = personas.make(Path("personas/dog-zwx"), Path(name), text_targets=TEXT)
    path = exported(made, merge=True)
    before, after = families.load(name, device="cpu", dtype=None), families.load(str(path), device="cpu", dtype=None)
    assert formats(path) == formats(Path(name))
    assert {torch.float16, torch.bfloat16} <= set(formats(path).values())
    learnt = personas.added(worn(made))
    weights = before.denoiser.state_dict()
    for key, value in after.denoiser.state_dict().items():
        change = learnt.get(f"{before.denoiser_name}.{key.removesuffix('.weight')}")
        wanted = weights[key] if change is None else (weights[key].float() + change).to(weights[key].dtype)
        assert torch.equal(value, wanted), key


def test_merging_is_for_diffusers_alone() -> None:
    with pytest.raises(BadOption, match="Leave one"):
        ExportConfig(persona=Path("x"), merge=True, to="kohya")


def test_another_base_is_refused(persona: Callable[..., Persona], base_folder: Folder) -> None:
    made = persona("sd-eps")
    with pytest.raises(BadPersona, match="made for another base"):
        exported(made, base=str(base_folder("sd-v")))
