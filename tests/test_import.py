"""What comes in from other programs: read as diffusers reads it, drawn with like any persona, or refused in a line."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import personas
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

from persona import adapter, exchange, families
from persona.config import ExportConfig, ImportConfig, InterpolateConfig, SampleConfig
from persona.errors import BadBase, BadOption, BadPersona, BadToken, PersonaError
from persona.exchange.names import table
from persona.exchange.product import difference
from persona.exchange.verifying import CLOSE, loaded
from persona.export import export
from persona.families import Family
from persona.folder import Persona
from persona.import_lora import import_lora
from persona.interpolate import interpolate
from persona.sample import sample
from persona.sitters import wear

Folder = Callable[[str], Path]
KOHYA = ("lora_down", "lora_up")
PEFT = ("lora_A", "lora_B")
DIFFUSERS = ("lora.down", "lora.up")
ALPHA = 0.7
BLOCK = "transformer_blocks_0"
FILES = {
    "sd-eps": [
        f"lora_unet_down_blocks_1_attentions_0_{BLOCK}_attn1_to_q",
        f"lora_unet_up_blocks_0_attentions_1_{BLOCK}_attn2_to_out_0",
        f"lora_unet_mid_block_attentions_0_{BLOCK}_ff_net_0_proj",
        "lora_unet_down_blocks_1_attentions_0_proj_in",
        "lora_unet_down_blocks_0_resnets_0_conv1",
        "lora_te_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_te_text_model_encoder_layers_1_mlp_fc1",
    ],
    "sdxl": [
        f"lora_unet_input_blocks_3_1_{BLOCK}_attn1_to_v",
        "lora_unet_input_blocks_3_1_transformer_blocks_1_attn2_to_k",
        f"lora_unet_middle_block_1_{BLOCK}_attn2_to_k",
        f"lora_unet_output_blocks_1_1_{BLOCK}_attn1_to_out_0",
        "lora_unet_input_blocks_2_0_op",
        "lora_unet_output_blocks_1_2_conv",
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj",
        "lora_te2_text_model_encoder_layers_1_mlp_fc2",
        "lora_te2_text_model_encoder_layers_1_self_attn_out_proj",
    ],
    "flux": [
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_unet_double_blocks_0_txt_attn_proj",
        "lora_unet_double_blocks_0_txt_mlp_0",
        "lora_unet_double_blocks_0_img_mod_lin",
        "lora_unet_single_blocks_0_linear2",
        "lora_te1_text_model_encoder_layers_1_self_attn_out_proj",
    ],
}


def outline(base_folder: Folder, name: str) -> Family:
    return families.outline(str(base_folder(name)))


def write(path: Path, base: Family, names: Sequence[str], parts: tuple[str, str] = KOHYA, **metadata: str) -> Path:
    """Write a random LoRA: modules by the names that are given, each with its rank; in kohya's files with an alpha."""
    random = torch.Generator().manual_seed(0)
    known, tensors = table(base), dict[str, Tensor]()
    for number, name in enumerate(names):
        plain = name.replace(".processor", "").replace(".to_out_lora", ".to_out.0").removesuffix("_lora")
        rows, rank = known[plain], 1 + number % 3
        inside = rows[0].shape[1:]
        down, up = f"{name}.{parts[0]}.weight", f"{name}.{parts[1]}.weight"
        tensors[down] = torch.randn(rank, *inside, generator=random)
        tensors[up] = torch.randn(rows[-1].end, rank, *[1] * (len(inside) - 1), generator=random)
        if parts == KOHYA:
            tensors[f"{name}.alpha"] = torch.tensor(ALPHA)
    save_file(tensors, path, metadata)
    return path


def said(base: Family) -> Tensor:
    noisy = torch.randn(1, base.pipe.vae.config.latent_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return base.predict(noisy, torch.tensor([300]), base.encode_prompts(["a sks dog"]))


@pytest.mark.parametrize("name", sorted(FILES))
def test_kohyas_files_are_read_as_diffusers_reads_them(base_folder: Folder, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.safetensors", outline(base_folder, name), FILES[name])
    ours = exchange.read(path, outline(base_folder, name))
    assert len(ours) == len(FILES[name]) + (2 if name == "flux" else 0)
    assert len({product.rank for product in ours.values()}) == 3
    assert difference(ours, loaded(path, outline(base_folder, name))) < CLOSE


def test_the_first_and_last_layers_of_flux_are_what_diffusers_takes_them_for(
    base_folder: Folder, tmp_path: Path
) -> None:
    """Before it puts them on, where it forgets them; and without alphas, of which it forgets that of the last one."""
    base = outline(base_folder, "flux")
    embedders = (f"{one}_in_{side}_layer" for one in ("time", "vector", "guidance") for side in ("in", "out"))
    ends = ("img_in", "txt_in", *embedders, "final_layer_adaLN_modulation_1", "final_layer_linear")
    path = write(tmp_path / "a.safetensors", base, [f"lora_unet_{end}" for end in ends])
    save_file({key: value for key, value in load_file(path).items() if not key.endswith(".alpha")}, path)
    theirs, ours = base.pipe.lora_state_dict(path), exchange.read(path, base)
    assert len(ours) == len(ends)
    for (_, module), product in ours.items():
        assert torch.equal(product.down, theirs[f"{module}.lora_A.weight"])
        assert torch.equal(product.up, theirs[f"{module}.lora_B.weight"])


def test_kohyas_files_of_sd3_change_the_weights_that_their_authors_mean(base_folder: Folder, tmp_path: Path) -> None:
    """Every layer that kohya adapts there; diffusers reads no such files, but knows where the authors' weights go."""
    ends = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    blocks = {"0.x_block": (*ends, "attn2.qkv", "attn2.proj"), "0.context_block": ends, "1.x_block": ends}
    blocks["1.context_block"] = ("attn.qkv", "adaLN_modulation.1")  # nothing comes after it
    layers = [f"joint_blocks.{block}.{end}" for block, all_ends in blocks.items() for end in all_ends]
    layers += ["x_embedder.proj", "context_embedder", "final_layer.linear", "final_layer.adaLN_modulation.1"]
    layers += [f"{one}_embedder.mlp.{number}" for one in "ty" for number in (0, 2)]
    names = {layer: f"lora_unet_{layer.replace('.', '_')}" for layer in layers}
    base = outline(base_folder, "sd3")
    tensors = load_file(write(tmp_path / "a.safetensors", base, list(names.values())))
    factors = {layer: [tensors[f"{name}.{part}.weight"].flatten(1) for part in KOHYA] for layer, name in names.items()}
    authors = {f"{layer}.weight": ALPHA / len(down) * up @ down for layer, (down, up) in factors.items()}
    authors |= {f"{layer}.bias": torch.zeros(6) for layer in layers} | {"pos_embed": torch.zeros(1)}
    ours = exchange.read(tmp_path / "a.safetensors", base)
    for module, weight in convert_sd3_transformer_checkpoint_to_diffusers(authors).items():
        if module.endswith(".weight"):
            product = ours.pop(("transformer", module.removesuffix(".weight")))
            torch.testing.assert_close(product.up.flatten(1) @ product.down.flatten(1), weight)
    assert not ours


@pytest.mark.parametrize("stable", [True, False])
def test_what_diffusers_writes_beside_the_factors_counts(base_folder: Folder, tmp_path: Path, *, stable: bool) -> None:
    """Since 0.34 its scripts keep alpha in the metadata alone."""
    base = outline(base_folder, "sd-eps")
    names = [f"unet.mid_block.attentions.0.transformer_blocks.0.attn1.{one}" for one in ("to_q", "to_k")]
    settings = LoraConfig(
        r=1, lora_alpha=8, rank_pattern={"attn1.to_k": 2}, alpha_pattern={"attn1.to_k": 3}, use_rslora=stable,
        target_modules=[name.removeprefix("unet.") for name in names],
    )  # fmt: skip
    told = {f"unet.{key}": sorted(one) if isinstance(one, set) else one for key, one in settings.to_dict().items()}
    path = write(tmp_path / "a.safetensors", base, names, ("lora_A", "lora_B"), lora_adapter_metadata=json.dumps(told))
    assert difference(exchange.read(path, base), loaded(path, outline(base_folder, "sd-eps"))) < CLOSE
    plain = write(tmp_path / "b.safetensors", base, names, ("lora_A", "lora_B"))
    assert difference(exchange.read(path, base), exchange.read(plain, base)) > CLOSE


def test_each_module_has_an_alpha_of_its_own(base_folder: Folder, tmp_path: Path) -> None:
    """Read plainly here: where alphas differ, diffusers loses those of attention on the way."""
    base = outline(base_folder, "sd-eps")
    path = write(tmp_path / "a.safetensors", base, FILES["sd-eps"])
    tensors = load_file(path)
    alphas = {f"{name}.alpha": torch.tensor(0.5 + number) for number, name in enumerate(FILES["sd-eps"])}
    save_file(tensors | alphas, path)
    ours, known = exchange.read(path, base), table(base)
    for name in FILES["sd-eps"]:
        down, up = (tensors[f"{name}.{part}.weight"] for part in KOHYA)
        product = ours[known[name][0].module]
        assert torch.equal(product.down, down)
        torch.testing.assert_close(product.up, up * (alphas[f"{name}.alpha"] / len(down)))


@pytest.mark.parametrize(
    ("name", "names", "parts"),
    [
        ("sd3", ["transformer.transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.1.ff.net.2"], PEFT),
        ("sd-eps", ["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"], DIFFUSERS),
        (
            "sd-eps",
            [
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora",
                "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora",
            ],
            ("down", "up"),
        ),
        (
            "sdxl",
            [f"text_encoder{one}.text_model.encoder.layers.0.self_attn.q_proj" for one in ("", "_2")],
            ("lora_linear_layer.down", "lora_linear_layer.up"),
        ),
    ],
)
def test_diffusers_own_files_of_any_age_are_read(
    base_folder: Folder, tmp_path: Path, name: str, names: list[str], parts: tuple[str, str]
) -> None:
    path = write(tmp_path / "a.safetensors", outline(base_folder, name), names, parts)
    ours = exchange.read(path, outline(base_folder, name))
    assert len(ours) == len(names)
    assert difference(ours, loaded(path, outline(base_folder, name))) < CLOSE


def test_names_of_comfyui_and_onetrainer_mean_the_same(base_folder: Folder, tmp_path: Path) -> None:
    base = outline(base_folder, "flux")
    kohya = write(tmp_path / "kohya.safetensors", base, ["lora_unet_single_blocks_0_linear1"])
    tensors = load_file(kohya)
    theirs, native = "lora_unet_single_blocks_0_", "diffusion_model.single_blocks.0."
    save_file({key.replace(theirs, native): value for key, value in tensors.items()}, tmp_path / "comfy.safetensors")
    wanted = exchange.read(kohya, base)
    assert len(wanted) == 4
    assert difference(wanted, exchange.read(tmp_path / "comfy.safetensors", base)) < CLOSE
    names = ["lora_transformer_transformer_blocks_0_attn_to_q", "lora_te2_encoder_block_0_layer_0_SelfAttention_q"]
    t5 = ("text_encoder_2", "encoder.block.0.layer.0.SelfAttention.q")
    path = write(tmp_path / "one.safetensors", base, names)
    assert set(exchange.read(path, base)) == {("transformer", "transformer_blocks.0.attn.to_q"), t5}


@pytest.mark.parametrize(
    ("name", "module"), [("sdxl", "down_blocks.1.attentions.0.proj_in"), ("sd-eps", "mid_block.attentions.0.proj_out")]
)
def test_a_linear_layer_may_be_a_convolution_elsewhere(
    base_folder: Folder, tmp_path: Path, name: str, module: str
) -> None:
    """So kohya has it in Stable Diffusion 2, and others the other way round."""
    base = outline(base_folder, name)
    path = write(tmp_path / "a.safetensors", base, [f"unet.{module}"], PEFT)
    wanted, tensors = exchange.read(path, base), load_file(path)
    other = {key: value[..., None, None] if value.ndim == 2 else value.flatten(1) for key, value in tensors.items()}
    save_file(other, tmp_path / "b.safetensors")
    read = exchange.read(tmp_path / "b.safetensors", base)
    assert difference(wanted, read) < CLOSE
    assert read["unet", module].up.ndim == base.denoiser.get_submodule(module).weight.ndim


@pytest.fixture
def here(base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with tiny bases under their names."""
    monkeypatch.chdir(tmp_path)
    for name in ("sd-eps", "sd-v", "sdxl", "flux"):
        Path(name).symlink_to(base_folder(name))
    return tmp_path


def imported(path: Path, name: str, **options: Any) -> Persona:
    return import_lora(ImportConfig(**{"file": path, "base": name, "class_noun": "dog", "token": "sks", **options}))


@pytest.mark.parametrize("name", ["sd-eps", "sdxl"])
def test_a_persona_of_theirs_predicts_what_diffusers_does(here: Path, name: str) -> None:
    path = write(here / "a.safetensors", families.outline(name), FILES[name])
    ours, theirs = families.load(name, device="cpu"), families.load(name, device="cpu")
    made = imported(path, name)
    wear(ours, made)
    bare = said(theirs)
    theirs.pipe.load_lora_weights(path)
    torch.testing.assert_close(said(ours), said(theirs), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(said(ours), bare, rtol=1e-2, atol=1e-2)
    assert (made.token, made.class_noun, made.method, made.path) == ("sks", "dog", "import", Path("personas/dog-sks"))
    adapter.scale(ours, 0)
    assert torch.equal(said(ours), bare)


def test_it_is_sampled_and_interpolated_like_any_other(here: Path) -> None:
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"])
    made = imported(path, "sd-eps")
    own = personas.make(Path("personas/cat-zwx"), Path("sd-eps"), class_noun="cat")
    assert len(sample(SampleConfig(prompts=("a [V] dog",), persona=made.path, n=2, steps=2))) == 2
    frames = interpolate(InterpolateConfig(prompts=("a [V] dog",), persona=(made.path, own.path), frames=3, steps=2))
    assert len(frames.paths) == 3


@pytest.mark.parametrize(("name", "to"), [("flux", "kohya"), ("sdxl", "kohya"), ("sd-eps", "diffusers")])
def test_our_own_files_need_nothing_said(here: Path, name: str, to: Any) -> None:
    made = personas.make(Path("personas/dog-zwx"), Path(name), kind="rslora", rank=3, alpha=2)
    path = export(ExportConfig(persona=made.path, to=to)).path
    again = import_lora(ImportConfig(file=path, out=Path("again")))
    assert (again.token, again.class_noun, again.base_hash) == (made.token, made.class_noun, made.base_hash)
    first, second = families.load(name, device="cpu"), families.load(name, device="cpu")
    wear(first, made)
    wear(second, again)
    torch.testing.assert_close(said(second), said(first), rtol=1e-4, atol=1e-5)


def test_a_trigger_phrase_names_token_and_class(here: Path) -> None:
    phrase = {"modelspec.trigger_phrase": "ohwx toy car"}
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"], KOHYA, **phrase)
    made = import_lora(ImportConfig(file=path, base="sd-eps"))
    assert (made.token, made.class_noun) == ("ohwx", "toy car")
    assert not any(str(here) in text for text in made.settings.values())


@pytest.mark.parametrize("phrase", ["photo of sks dog", "ohwx, dog", "sks", "a dog", "dog."])
def test_a_trigger_phrase_of_something_else_is_not_taken_for_them(here: Path, phrase: str) -> None:
    told = {"modelspec.trigger_phrase": phrase}
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"], KOHYA, **told)
    with pytest.raises(BadToken, match=r"does not say what it shows\. Give --class dog"):
        import_lora(ImportConfig(file=path, base="sd-eps"))


@pytest.mark.parametrize("told", [{"persona.token": "a b"}, {"persona.class": "dog" * 99}])
def test_words_of_a_file_that_cannot_be_read_are_not_called_options(here: Path, told: dict[str, str]) -> None:
    told = {"persona.token": "sks", "persona.class": "dog", **told}
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"], KOHYA, **told)
    with pytest.raises(BadToken, match=r"does not say what it shows\. Give --class dog"):
        import_lora(ImportConfig(file=path, base="sd-eps"))


@pytest.mark.parametrize(("told", "taken"), [("0.7", 0.7), ("nan", 1.0), ("-3", 1.0), ("inf", 1.0), ("strong", 1.0)])
def test_a_strength_that_nobody_could_ask_for_is_not_taken(here: Path, told: str, taken: float) -> None:
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"], KOHYA, **{"persona.scale": told})
    assert imported(path, "sd-eps").recommended_scale == taken


def test_a_killed_one_does_not_stand_in_the_way(here: Path) -> None:
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"])
    (here / "rex" / ".import-x").mkdir(parents=True)
    imported(path, str(here / "sd-eps"), out=Path("rex"))
    assert sorted(file.name for file in (here / "rex").iterdir()) == ["adapter.safetensors", "persona.json"]


@pytest.mark.parametrize("out", [".", "", "link"])
def test_an_empty_folder_is_filled_wherever_it_is(here: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"])
    base = str(here / "sd-eps")
    (here / "empty").mkdir()
    (here / "link").symlink_to("empty")
    monkeypatch.chdir(here if out == "link" else here / "empty")
    assert imported(path, base, out=Path(out)).path == Path(out)
    assert sorted(file.name for file in (here / "empty").iterdir()) == ["adapter.safetensors", "persona.json"]
    assert (here / "link").is_symlink()
    assert Persona.open(Path(out)).token == "sks"


def of_another_family(path: Path) -> None:
    write(path, families.outline("flux"), FILES["flux"])


def of_another_size(path: Path) -> None:
    name = FILES["sd-eps"][0]
    save_file({f"{name}.lora_down.weight": torch.zeros(1, 99), f"{name}.lora_up.weight": torch.zeros(99, 1)}, path)


def dora(path: Path) -> None:
    write(path, families.outline("sd-eps"), FILES["sd-eps"])
    save_file(load_file(path) | {f"{FILES['sd-eps'][0]}.dora_scale": torch.ones(1)}, path)


def half(path: Path) -> None:
    write(path, families.outline("sd-eps"), FILES["sd-eps"])
    save_file({key: value for key, value in load_file(path).items() if "lora_up" not in key}, path)


def without_ranks(path: Path) -> None:
    name = FILES["sd-eps"][0]
    save_file({f"{name}.lora_down.weight": torch.zeros(0, 32), f"{name}.lora_up.weight": torch.zeros(32, 0)}, path)


def flat(path: Path) -> None:
    name = FILES["sd-eps"][0]
    save_file({f"{name}.lora_down.weight": torch.zeros(1, 32), f"{name}.lora_up.weight": torch.zeros(32)}, path)


def endless(path: Path) -> None:
    write(path, families.outline("sd-eps"), FILES["sd-eps"])
    key = f"{FILES['sd-eps'][0]}.lora_up.weight"
    save_file(load_file(path) | {key: torch.full_like(load_file(path)[key], torch.inf)}, path)


def cut_off(path: Path) -> None:
    write(path, families.outline("sd-eps"), FILES["sd-eps"])
    path.write_bytes(path.read_bytes()[:-9])


def for_another_base_of_ours(path: Path) -> None:
    write(path, families.outline("sd-eps"), FILES["sd-eps"], KOHYA, **{"persona.base_hash": "0" * 64})


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (of_another_family, "is for another base: it adapts .*, which sd-eps does not have"),
        (of_another_size, "is for another base: .* in another size"),
        (dora, "is no plain LoRA: it holds .*dora_scale"),
        (half, "lacks a factor"),
        (without_ranks, "is no product"),
        (flat, "is no product"),
        (endless, "is not finite"),
        (cut_off, "damaged"),
        (for_another_base_of_ours, "made for another base"),
    ],
)
def test_what_cannot_be_worn_is_refused_in_one_line(here: Path, harm: Callable[[Path], None], said: str) -> None:
    harm(here / "a.safetensors")
    with pytest.raises(BadPersona, match=said) as refusal:
        imported(here / "a.safetensors", "sd-eps")
    assert len(str(refusal.value).splitlines()) == 1
    assert not Path("personas").exists()


def test_a_pickle_is_never_loaded(here: Path) -> None:
    torch.save({"x": torch.zeros(1)}, here / "a.pt")
    with pytest.raises(BadPersona, match=r"pickle.*never loaded"):
        imported(here / "a.pt", "sd-eps")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"base": None}, BadBase, "does not say which base"),
        ({"class_noun": None}, BadToken, "does not say what it shows"),
        ({"token": None}, BadToken, "does not say what it shows"),
        ({"token": "two words"}, BadToken, "one word"),
        ({"out": Path("sd-eps")}, BadOption, "holds something already"),
    ],
)
def test_what_the_file_does_not_say_is_asked_for(
    here: Path, options: dict[str, Any], error: type[PersonaError], said: str
) -> None:
    path = write(here / "a.safetensors", families.outline("sd-eps"), FILES["sd-eps"])
    with pytest.raises(error, match=said):
        imported(path, "sd-eps", **options)
