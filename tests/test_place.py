"""Where bases are found, and what is said where they are not: before a download, without one, and in a single file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bases
import hub_cache
import pytest
import single_file
import torch
from diffusers.pipelines.pipeline_loading_utils import _get_ignore_patterns
from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError
from PIL.Image import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from persona import families
from persona.errors import BadBase, NoMemory
from persona.events import Event, Note
from persona.families import place
from persona.families.place import INDEX, flaw, known, stored
from persona.noise import Diffusion

Folder = Callable[[str], Path]
HEADER = "model.diffusion_model.input_blocks.0.0.weight"


def load(base: Path | str, **how: Any) -> families.Family:
    return families.load(str(base), device="cpu", **how)


def draw(base: families.Family) -> Image:
    return base.draw(["a dog"], [1], size=(32, 32), steps=2)[0]


def refusal(base: Path | str, said: str) -> str:
    with pytest.raises(BadBase, match=said) as caught:
        load(base)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


# Well-known bases


def test_each_short_name_is_described() -> None:
    names = "sd15 sd21 sdxl sd3-medium sd35-medium sd35-large flux-dev flux-krea flux-schnell"
    assert set(known()) == set(names.split())
    for one in known().values():
        assert one.repo.count("/") == 1
        assert 1 < one.gigabytes < 100
        assert one.licence in str(one)
        assert ("gated" in str(one)) == one.gated


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Return a function that says what fetching from the hub comes to."""

    def answer(error: BaseException) -> None:
        def download(*args: Any, **kwargs: Any) -> str:
            raise OSError("cannot load model") from error

        monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)

    return answer


RESPONSE: Any = SimpleNamespace(headers={}, request=None)


@pytest.mark.parametrize(
    ("base", "error", "said"),
    [
        ("sd15", OfflineModeIsEnabled("offline"), "cannot be fetched"),
        ("flux-dev", OfflineModeIsEnabled("offline"), "hf auth login"),
        ("someone/model", ConnectionError("no route"), "cannot be fetched: no route."),
        ("no name/of a model", ValueError("no valid name"), "cannot be fetched"),
        ("flux-dev", GatedRepoError("gated", response=RESPONSE), "accept its licence"),
        ("someone/model", RepositoryNotFoundError("none", response=RESPONSE), "has no someone/model"),
    ],
)
def test_what_cannot_be_fetched_says_why_and_where_to_put_it(
    hub: Callable[[BaseException], None], base: str, error: BaseException, said: str
) -> None:
    hub(error)
    assert f"folder here as {base}." in refusal(base, said)


def test_a_base_with_half_precision_files_alone_is_fetched(
    base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    for path in list(copy.glob("*/*.safetensors")):
        path.rename(path.with_suffix(".fp16.safetensors"))
    names = [path.relative_to(copy).as_posix() for path in copy.glob("*/*.safetensors")]
    own = {"use_safetensors": True, "allow_pickle": False, "use_onnx": False, "is_onnx": False, "use_flashpack": False}

    def download(repo: str, *, variant: str | None = None, **_: Any) -> str:
        parts = [name.partition("/")[0] for name in names]
        _get_ignore_patterns([], parts, names, variant=variant, **own)  # what it refuses by
        return str(copy)

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", download)
    assert draw(load("someone/model")).tobytes() == draw(load(base_folder("sd-eps"))).tobytes()


def test_size_licence_and_gate_are_told_before_a_download(hub: Callable[[BaseException], None]) -> None:
    hub(OfflineModeIsEnabled("offline"))
    for base, said in (("sd35-large", "27.6 GB, licence Stability AI Community, gated"), ("a/b", "a/b; its page says")):
        events: list[Event] = []
        with pytest.raises(BadBase):
            load(base, listener=events.append)
        assert said in "".join(event.text for event in events if isinstance(event, Note))


def test_a_folder_of_that_name_takes_the_place_of_the_hub(
    base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sd15").symlink_to(base_folder("sd-eps"))
    assert load("sd15").hash == load(base_folder("sd-eps")).hash


@pytest.mark.parametrize("base", ["nothing", "no/such/folder", "models/lost.safetensors", "~/model"])
def test_what_can_be_no_base_is_refused_without_the_hub(base: str) -> None:
    assert "sd15, sd21" in refusal(base, "There is no base")


def test_what_was_fetched_of_a_repository_is_found_again(
    base_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fetches a pipeline leaves out what is not needed; the hub takes that for an incomplete one."""
    repo = known()["sd15"].repo
    folder = hub_cache.fetched(monkeypatch, repo, shutil.copytree(base_folder("sd-eps"), tmp_path / "copy"))
    for base in ("sd15", repo):
        assert families.here(base) == place.Place(folder)
    file = header(tmp_path / "dream.safetensors", {HEADER: (8, 4, 3, 3)})
    next((folder / "unet").glob("*.safetensors")).unlink()
    assert families.here("sd15") is None
    assert place.find(str(file)) == place.Place(folder, file, borrowed=True)
    shutil.rmtree(folder / "scheduler")
    refusal(file, "has no configs")


# Folders


def harmed(folder: Path, harm: str) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    if harm == "a part":
        shutil.rmtree(folder / "unet")
        return
    if harm == "cut off":
        weights.write_bytes(weights.read_bytes()[:-10])
        return
    weights.unlink()
    if harm == "a shard":
        names = {
            key: f"diffusion_pytorch_model-0000{1 + number % 2}-of-00002.safetensors"
            for number, key in enumerate(tensors)
        }
        index = {"metadata": {"total_size": 0}, "weight_map": names}
        (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
        first = {key: value for key, value in tensors.items() if "00001" in names[key]}
        save_file(first, folder / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors", {"format": "pt"})
    if harm == "the list":
        (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("cut off", "unet/diffusion_pytorch_model.safetensors is damaged or cut off"),
        ("all", r"unet/\*.safetensors is missing"),
        ("a part", "damaged: unet is missing"),
        ("a shard", "unet/diffusion_pytorch_model-00002-of-00002.safetensors is missing"),
        ("the list", "the list of unet's weights is damaged"),
    ],
)
def test_missing_and_damaged_weights_are_named(base_folder: Folder, tmp_path: Path, harm: str, said: str) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    assert flaw(copy) == ""
    harmed(copy, harm)
    refusal(copy, said)


def test_a_folder_with_half_precision_files_alone_is_read(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    for path in (copy / "unet", copy / "vae"):
        (path / "diffusion_pytorch_model.safetensors").rename(path / "diffusion_pytorch_model.fp16.safetensors")
    assert draw(load(copy)).tobytes() == draw(load(base_folder("sd-eps"))).tobytes()


def test_variants_that_another_program_fetches_change_nothing(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    known, formats = load(copy).hash, stored(copy)
    for path in list(copy.glob("*/*.safetensors")):
        halves = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(halves, path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert load(copy).hash == known
    assert stored(copy) == formats
    for path in (copy / "unet").glob("*model.safetensors"):
        path.unlink()
    assert load(copy).hash != known


def test_no_code_of_a_base_is_ever_run(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    index = json.loads((copy / INDEX).read_text())
    (copy / INDEX).write_text(json.dumps(index | {"_class_name": ["pipeline", "StableDiffusionPipeline"]}))
    (copy / "pipeline.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    refusal(copy, "not supported")
    assert not (tmp_path / "ran").exists()


# Single files


@pytest.mark.parametrize(
    ("made", "beside"),
    [(bases.sd, "dream"), (bases.sd, "."), (lambda: bases.sdxl(48), "dream")],
    ids=["sd", "sd-here", "sdxl"],
)
def test_a_single_file_is_the_same_base(tmp_path: Path, made: Callable[[], Any], beside: str) -> None:
    folder = bases.save(made, tmp_path / "whole")
    whole = load(folder)
    shutil.copytree(folder, tmp_path / beside, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    base = load(single_file.write(whole.pipe, tmp_path / "dream.safetensors"))
    assert draw(base).tobytes() == draw(whole).tobytes()
    assert base.hash == families.outline(base.name).hash
    assert base.hash != whole.hash  # it is another file, though it draws the same
    exact = load(tmp_path / "dream.safetensors", dtype=torch.bfloat16)
    assert exact.denoiser.dtype == torch.bfloat16
    assert exact.pipe.vae.dtype == (torch.float32 if len(whole.text_encoders) == 2 else torch.bfloat16)


@pytest.fixture
def borrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], families.Family]:
    """Return a function that saves a tiny pipeline whose configs stand for those of the base with a short name."""

    def borrow(short: str) -> families.Family:
        folder = bases.save({"sdxl": lambda: bases.sdxl(48), "sd21": lambda: bases.sd("v_prediction")}[short], tmp_path)
        (folder / "recipe.json").unlink()
        monkeypatch.setattr(place, "kind_of", lambda *_: known()[short])
        monkeypatch.setattr(place, "cached", lambda _: folder)
        return load(folder)

    return borrow


@pytest.mark.parametrize(
    ("marks", "predicts", "zero"),
    [((), "epsilon", False), (("v_pred",), "v_prediction", False), (("v_pred", "ztsnr"), "v_prediction", True)],
)
def test_the_marks_of_a_single_file_say_what_it_predicts(
    borrowed: Callable[[str], families.Family], tmp_path: Path, marks: tuple[str, ...], predicts: str, zero: bool
) -> None:
    (tmp_path / "files").mkdir()
    path = single_file.write(borrowed("sdxl").pipe, tmp_path / "files" / "dream.safetensors")
    save_file({**load_file(path), **{mark: torch.zeros(0) for mark in marks}}, path)
    for base in (load(path), families.outline(str(path)), families.blueprint(str(path))):
        config = base.pipe.scheduler.config
        assert config.prediction_type == predicts
        assert config.rescale_betas_zero_snr == zero
        assert config.timestep_spacing == ("trailing" if zero else "leading")
        assert isinstance(base.noise, Diffusion)
        assert base.noise.velocity == (predicts == "v_prediction")
        assert (base.noise.kept[-1] < 1e-6) == zero
    configs = tmp_path / "files" / "dream"  # whoever puts configs beside a file knows better
    shutil.copytree(tmp_path, configs, ignore=shutil.ignore_patterns("*.safetensors", "files"))
    assert load(path).pipe.scheduler.config.prediction_type == "epsilon"


def test_a_single_file_with_the_noise_of_edm_is_refused(
    borrowed: Callable[[str], families.Family], tmp_path: Path
) -> None:
    borrowed("sdxl")
    (tmp_path / "files").mkdir()
    path = header(tmp_path / "files" / "cosxl.safetensors", {"edm_vpred.sigma_max": (1,)})
    with pytest.raises(BadBase, match=r"cosxl.safetensors was trained on the noise of EDM"):
        families.outline(str(path))


@pytest.mark.parametrize(("spread", "predicts", "side"), [(0.05, "epsilon", 512), (0.1, "v_prediction", 32)])
def test_version_2_at_512_pixels_is_told_from_that_at_768(
    borrowed: Callable[[str], families.Family], tmp_path: Path, spread: float, predicts: str, side: int
) -> None:
    borrowed("sd21")
    (tmp_path / "files").mkdir()
    name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    save_file({name: torch.tensor([-spread, spread])}, tmp_path / "files" / "dream.safetensors")
    base = families.outline(str(tmp_path / "files" / "dream.safetensors"))
    assert base.pipe.scheduler.config.prediction_type == predicts
    assert base.resolution == side


def header(path: Path, keys: dict[str, tuple[int, ...]]) -> Path:
    save_file({key: torch.zeros(shape) for key, shape in keys.items()}, path)
    return path


@pytest.mark.parametrize(
    ("keys", "repo"),
    [
        ({HEADER: (8, 4, 3, 3)}, "stable-diffusion-v1-5"),
        ({"model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024)}, "sd2-community"),
        ({"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (8,)}, "stable-diffusion-xl-base"),
        ({"joint_blocks.37.x_block.mlp.fc1.weight": (8, 8)}, "3.5-large (gated"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": (8,)}, "FLUX.1-schnell"),
    ],
)
def test_without_configs_a_single_file_says_whose_are_needed(
    tmp_path: Path, keys: dict[str, tuple[int, ...]], repo: str
) -> None:
    said = refusal(header(tmp_path / "dream.safetensors", keys), "has no configs")
    assert repo in said
    assert "beside it as dream;" in said


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"some.weight": (2, 2)}, r"unsupported kind \(unknown\). Supported are: .*v1, v2"),
        ({HEADER: (8, 9, 3, 3)}, r"unsupported kind \(inpainting\)"),
        ({"lora_unet_down_blocks_0.lora_down.weight": (2, 2)}, "is a LoRA, no base.*persona import"),
        ({"some.weight": (2, 2), "some.scale_weight": (1,)}, "quantized weights.*fp16 or bf16"),
        ({"some.weight": (2, 2), "some.weight.absmax": (1,)}, "quantized weights.*fp16 or bf16"),
        ({"some.weight": (2, 2), "scaled_fp8": (2,)}, "quantized weights.*fp16 or bf16"),
    ],
)
def test_single_files_of_other_kinds_are_refused(tmp_path: Path, keys: dict[str, tuple[int, ...]], said: str) -> None:
    refusal(header(tmp_path / "dream.safetensors", keys), said)


def test_damaged_files_and_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dream.safetensors").write_bytes(b"\x80\0\0\0\0\0\0\0{")
    refusal(tmp_path / "dream.safetensors", "damaged or cut off")
    torch.save({HEADER: torch.zeros(2)}, tmp_path / "dream.ckpt")
    refusal(tmp_path / "dream.ckpt", "pickle.*never loaded")


def test_a_single_file_without_its_text_encoder_is_refused(base_folder: Folder, tmp_path: Path) -> None:
    shutil.copytree(base_folder("sd-eps"), tmp_path / "dream", ignore=shutil.ignore_patterns("*.safetensors"))
    path = single_file.write(load(base_folder("sd-eps")).pipe, tmp_path / "dream.safetensors")
    save_file({key: value for key, value in load_file(path).items() if "cond_stage" not in key}, path)
    refusal(path, "lacks parts")


# Outlines


@pytest.mark.parametrize("name", ["sd-eps", "sdxl", "sd3", "flux"])
def test_an_outline_has_the_shapes_of_the_base(base_folder: Folder, name: str) -> None:
    whole, outline = load(base_folder(name)), families.outline(str(base_folder(name)))
    assert (outline.hash, outline.recipe, outline.lengths) == (whole.hash, whole.recipe, whole.lengths)
    for part, network in {"denoiser": whole.denoiser, **whole.text_encoders}.items():
        hollow = outline.denoiser if part == "denoiser" else outline.text_encoders[part]
        shapes = {key: value.shape for key, value in hollow.state_dict().items()}
        assert shapes == {key: value.shape for key, value in network.state_dict().items()}
        assert sum(value.untyped_storage().nbytes() for value in hollow.state_dict().values()) <= 8 * len(shapes)


def test_an_outline_with_damaged_configs_is_refused(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    (copy / "unet" / "config.json").write_text("{")
    with pytest.raises(BadBase, match=r"configs in .* are damaged"):
        families.outline(str(copy))


def test_flux_schnell_draws_in_four_steps(base_folder: Folder, tmp_path: Path) -> None:
    for name, steps in (("flux", 28), ("flux-schnell", 4)):
        copy = shutil.copytree(base_folder(name), tmp_path / name)
        (copy / "recipe.json").unlink()
        recipe = families.outline(str(copy)).recipe
        assert recipe.sample_steps == recipe.prior_sample_steps == steps


def test_the_pipeline_says_how_much_is_read(base_folder: Folder) -> None:
    assert bases.t5_tokenizer().model_max_length == 512
    read = {
        name: families.outline(str(base_folder(name))).lengths[-1] for name in ("sd-eps", "sd3", "flux", "flux-schnell")
    }
    assert read == {"sd-eps": 16, "sd3": 256, "flux": 512, "flux-schnell": 256}


def test_too_little_memory_is_not_taken_for_damage(base_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any, **__: Any) -> None:
        raise SafetensorError("The paging file is too small for this operation to complete. (os error 1455)")

    monkeypatch.setattr(place, "safe_open", short)
    assert flaw(base_folder("sd-eps")) == ""
    monkeypatch.setattr("safetensors.torch.load_file", short)  # diffusers says no more than that it cannot load
    with pytest.raises(NoMemory, match="os error 1455"):
        load(base_folder("sd-eps"))
