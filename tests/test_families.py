import json
import re
import shutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import bases
import numpy as np
import pytest
import reference
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL.Image import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from persona import families
from persona.errors import BadBase, BadOption
from persona.families import Conditioning, Family
from persona.families.conditioning import Reader
from persona.families.recipe import Recipe

Folder = Callable[[str], Path]
ALL = pytest.mark.parametrize("name", sorted(bases.BASES))


def load(folder: Folder, name: str = "sd-eps", dtype: torch.dtype = torch.float32) -> Family:
    return families.load(str(folder(name)), dtype=dtype, device="cpu")


@cache
def loaded(folder: Path) -> Family:
    """Return a base to look at. Do not change it."""
    return families.load(str(folder), device="cpu")


def differ(one: Image, other: Image) -> int:
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


@pytest.mark.parametrize("name", bases.U_NETS)
def test_the_ancestral_sampler_cuts_no_latents_off(base_folder: Folder, name: str) -> None:
    """As it would by itself where the base's sampler has no such setting."""
    base = loaded(base_folder(name))
    assert base.sampler(ancestral=True).config.clip_sample is False


@pytest.mark.parametrize(
    ("name", "ancestral"), [(name, False) for name in bases.BASES] + [("sd-eps", True), ("sdxl", True), ("flux", True)]
)
def test_a_picture_depends_on_its_prompt_and_seed_alone(base_folder: Folder, name: str, ancestral: bool) -> None:
    base = loaded(base_folder(name))
    size = (base.granularity * 4, base.granularity * 4)
    first, other, again = base.draw(["a dog", "a cat", "a dog"], [1, 2, 1], size=size, ancestral=ancestral)
    alone = base.draw(["a dog"], [1], size=size, ancestral=ancestral)[0]
    assert first.size == size
    assert first.tobytes() == again.tobytes()
    assert differ(first, alone) <= 1
    assert differ(first, other) > 10


@pytest.mark.parametrize(
    ("name", "negative"),
    [(name, "") for name in bases.BASES] + [(name, "a cat") for name in bases.BASES if not name.startswith("flux")],
)
def test_drawing_is_as_the_pipeline_draws(base_folder: Folder, name: str, negative: str) -> None:
    base = loaded(base_folder(name))
    size = (base.granularity * 4, base.granularity * 4)
    ours = base.draw(["a dog"], [7], steps=3, guidance=3.0, size=size, negative=negative)[0]
    theirs = base.pipe(
        "a dog",
        generator=torch.Generator().manual_seed(7),
        num_inference_steps=3,
        guidance_scale=3.0,
        width=size[0],
        height=size[1],
        **({"negative_prompt": negative} if negative else {}),
        **({"max_sequence_length": 256} if name == "flux-schnell" else {}),  # as its model card says
    ).images[0]
    assert differ(ours, theirs) <= 1


@ALL
def test_guidance_starts_where_the_recipe_says(base_folder: Folder, name: str) -> None:
    base = load(base_folder, name)
    size = (base.granularity * 4, base.granularity * 4)

    def drawn(guidance: float, start: float) -> Image:
        base.recipe = replace(base.recipe, guidance_start=start)
        return base.draw(["a dog"], [7], steps=3, guidance=guidance, size=size)[0]

    never, late = drawn(9.0, 1.0), drawn(9.0, 0.5)
    plain, led = drawn(1.0, 0.0), drawn(9.0, 0.0)
    if name.startswith("flux"):  # which is told once how strongly it is led
        assert never.tobytes() == led.tobytes()
        return
    assert differ(never, plain) <= 1
    assert drawn(1.0, 0.5).tobytes() == plain.tobytes()
    assert min(differ(late, plain), differ(late, led)) > 1
    assert drawn(9.0, 0.0).tobytes() == led.tobytes()


def test_what_takes_no_negative_prompt_says_so(base_folder: Folder) -> None:
    with pytest.raises(BadOption, match="no negative prompt"):
        loaded(base_folder("flux")).draw(["a dog"], [7], steps=1, size=(32, 32), negative="a cat")


@ALL
def test_given_conditioning_and_noise_take_the_place_of_prompt_and_seed(base_folder: Folder, name: str) -> None:
    base = loaded(base_folder(name))
    size = (base.granularity * 4, base.granularity * 4)
    wanted = base.draw(["a dog"], [3], size=size)[0]
    noise = base.initial_noise([torch.Generator().manual_seed(3)], size)
    with torch.no_grad():
        given = base.draw(["no matter"], [8], size=size, conditioning=base.encode_prompts(["a dog"]), latents=noise)
    assert differ(wanted, given[0]) <= 1


@ALL
def test_freed_encoders_are_gone_and_not_missed(base_folder: Folder, name: str) -> None:
    base = load(base_folder, name)
    size = (base.granularity * 4, base.granularity * 4)
    wanted = base.draw(["a dog"], [1], size=size)[0]
    encoders = [weakref.ref(part) for part in (*base.text_encoders.values(), base.pipe.vae.encoder)]
    base.remember(["a dog", ""])
    base.free_text_encoders()
    base.free_image_encoder()
    assert [encoder() for encoder in encoders] == [None] * len(encoders)
    assert base.draw(["a dog"], [1], size=size)[0].tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_encoders_that_were_put_aside_are_gone_before_the_rest_settles(
    base_folder: Folder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    base = families.load(str(base_folder(name)), device="cpu", offload=True)
    encoders = [weakref.ref(part) for part in (*base.text_encoders.values(), base.pipe.vae.encoder)]
    base.remember(["a dog", ""])
    base.free_text_encoders()
    base.free_image_encoder()
    left: list[Any] = []
    monkeypatch.setattr(type(base.pipe), "to", lambda *_: left.extend(encoder() for encoder in encoders))
    base.settle()
    assert left == [None] * 3


@pytest.mark.parametrize(("device", "usual"), [("cuda", True), ("cpu", False)])
def test_kernels_are_chosen_for_the_device_whatever_is_put_aside(base_folder: Folder, device: str, usual: bool) -> None:
    pipe = families.outline(str(base_folder("sd-eps"))).pipe  # on the CPU, as networks that are idle
    torch.nn.Module.to(pipe.unet, torch.bfloat16)
    kind = Family.known["StableDiffusionPipeline"]
    base = kind(pipe, name="", folder=base_folder("sd-eps"), device=torch.device(device))
    kinds = {type(one) for one in base.denoiser.attn_processors.values()}
    assert (kinds == {AttnProcessor2_0}) == usual


def test_what_is_remembered_waits_in_main_memory() -> None:
    """There may be a caption for each class image, of 4 MB for FLUX.1; a GPU is told but those of a batch."""
    gpu, encoded = torch.device("cuda", 0), list[Any]()

    def encode(prompts: Sequence[str]) -> Conditioning:
        told = torch.zeros(len(prompts), 4, 8, device=gpu)
        encoded.append(weakref.ref(told))
        return {"encoder_hidden_states": told}

    with FakeTensorMode():  # without data, as without the GPU
        reader = Reader(encode)
        reader.remember(["a dog", "a cat"])
        assert [told() for told in encoded] == [None, None]
        for prompts in (["a dog", "a cat"], ["a cat", "a red cat"]):
            assert reader.rows(prompts, gpu)["encoder_hidden_states"].device == gpu


@ALL
def test_each_prompt_has_its_row(base_folder: Folder, name: str) -> None:
    base = load(base_folder, name)
    prompts = ["a dog", "a cat", "a dog", "a red cat"]
    apart = [base.encode_prompts([prompt]) for prompt in prompts]
    for remembered in ([], ["a cat"], prompts):
        base.remember(remembered)
        for key, rows in base.conditioning(prompts).items():
            torch.testing.assert_close(rows, torch.cat([one[key] for one in apart]))


@ALL
def test_latents_are_scaled_as_the_pipeline_undoes_it(base_folder: Folder, name: str) -> None:
    base = loaded(base_folder(name))
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    latents = base.encode_images(pixels, torch.Generator().manual_seed(0))
    config = base.pipe.vae.config
    back = latents / config.scaling_factor + (config.shift_factor or 0)
    posterior = base.pipe.vae.encode(pixels).latent_dist
    noise = torch.randn(back.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(back, posterior.mean + posterior.std * noise)


@ALL
def test_bf16_predicts_nearly_the_same(base_folder: Folder, name: str) -> None:
    fine, coarse = loaded(base_folder(name)), load(base_folder, name, torch.bfloat16)
    channels = fine.pipe.vae.config.latent_channels
    noisy, times = torch.randn(2, channels, 8, 8), torch.tensor([10, 700])
    with torch.no_grad():
        exact = fine.predict(noisy, times, fine.encode_prompts(["a dog", "a cat"]))
    near = coarse.predict(noisy.requires_grad_(), times, coarse.encode_prompts(["a dog", "a cat"]))
    assert near.dtype == torch.float32
    assert (near - exact).std() < 0.05 * exact.std()
    torch.autograd.backward(near.sum())
    assert noisy.grad is not None  # whichever attention kernels were chosen
    assert fine.hash == coarse.hash


@ALL
def test_sizes_are_those_of_the_configs(base_folder: Folder, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(base_folder(name), tmp_path / "copy")
    (copy / "recipe.json").unlink()
    base = families.outline(str(copy))
    pixels = 4  # a latent's side, in these small autoencoders
    assert base.granularity == 2 * pixels
    assert base.resolution == (128 if name.startswith("flux") else 8) * pixels  # as its pipeline does


@pytest.mark.parametrize("forced", [True, False])
def test_an_autoencoder_stays_in_float32_where_its_config_forces_it(
    base_folder: Folder, tmp_path: Path, forced: bool
) -> None:
    copy = shutil.copytree(base_folder("sdxl"), tmp_path / "copy")
    edit(copy / "vae" / "config.json", force_upcast=forced)
    fine, coarse = load(lambda _: copy), load(lambda _: copy, dtype=torch.bfloat16)
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    exact, got = (base.encode_images(pixels, torch.Generator().manual_seed(0)) for base in (fine, coarse))
    assert torch.equal(exact, got) == forced
    (shown,), (exactly,) = coarse.decode_latents(exact), fine.decode_latents(exact)
    assert (shown.tobytes() == exactly.tobytes()) == forced
    assert coarse.denoiser.dtype == torch.bfloat16


def test_sd3_does_without_t5(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd3"), tmp_path / "copy")
    edit(copy / "model_index.json", text_encoder_3=[None, None], tokenizer_3=[None, None])
    base, times = load(lambda _: copy), torch.tensor([300.0])
    noisy = torch.randn(1, base.pipe.vae.config.latent_channels, 8, 8)
    with torch.no_grad():
        said = base.predict(noisy, times, base.encode_prompts(["a dog"]))
        wanted = reference.predict(base.pipe, noisy, times, "a dog")
    torch.testing.assert_close(said, wanted)
    assert len(base.text_encoders) == len(base.tokenizers) == 2


def test_the_hash_is_of_the_contents(base_folder: Folder, tmp_path: Path) -> None:
    folder = base_folder("sd-eps")
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert load(lambda _: copy).hash == load(lambda _: folder).hash
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert load(lambda _: copy).hash != load(lambda _: folder).hash


def test_a_base_may_be_made_for_pictures_that_are_not_square(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    (copy / "recipe.json").unlink()
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": [12, 8]}))
    assert families.outline(str(copy)).resolution == load(lambda _: copy).resolution == 32


def test_a_base_may_bring_its_own_recipe(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    (copy / "recipe.json").write_text('{"rank": 3, "resolution": 64}')
    base = load(lambda _: copy)
    assert base.recipe.rank == 3
    assert base.resolution == 64
    (copy / "recipe.json").write_text('{"rnak": 3}')
    with pytest.raises(BadBase, match=r"recipe.json has unknown keys: rnak\. Correct or remove them"):
        load(lambda _: copy)
    (copy / "recipe.json").write_text('["rank"]')
    with pytest.raises(BadBase, match=r"recipe.json is no JSON object .*\. Correct or remove it"):
        load(lambda _: copy)


@pytest.mark.parametrize(
    "said",
    ['"guidance": "7.5"', '"rank": 1.5', '"batch": 0', '"targets": "to_q"', '"text_encoder": 1', '"guidance": NaN'],
)
def test_a_recipe_of_other_kinds_of_values_is_refused(base_folder: Folder, tmp_path: Path, said: str) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    (copy / "recipe.json").write_text(f"{{{said}}}")
    name, _, value = said.replace('"', "", 2).partition(": ")
    with pytest.raises(BadBase, match=rf"recipe.json: {name} cannot be {re.escape(value)}\. Correct or remove it"):
        load(lambda _: copy)


def test_a_recipe_of_every_setting_is_taken(base_folder: Folder, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    said = asdict(Recipe()) | {"resolution": None, "guidance": 3, "score_every": 0}
    (copy / "recipe.json").write_text(json.dumps(said))
    assert load(lambda _: copy).recipe == Recipe(guidance=3, score_every=0)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


def unknown_family(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="KandinskyPipeline")


def predicts_samples(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (no_index, "no pipeline"),
        (unknown_family, "KandinskyPipeline is not supported"),
        (predicts_samples, "cannot be trained"),
    ],
)
def test_bad_bases_are_refused(base_folder: Folder, tmp_path: Path, harm: Callable[[Path], None], said: str) -> None:
    copy = shutil.copytree(base_folder("sd-eps"), tmp_path / "copy")
    harm(copy)
    with pytest.raises(BadBase, match=said) as refusal:
        load(lambda _: copy)
    assert len(str(refusal.value).splitlines()) <= 2


def test_a_base_that_is_not_here_is_refused_without_a_network() -> None:
    with pytest.raises(BadBase, match="cannot be fetched") as refusal:
        families.load("sd15")
    assert len(str(refusal.value).splitlines()) <= 2


def test_an_autoencoder_that_overflows_is_told_with_what_helps(base_folder: Folder) -> None:
    base = load(base_folder)
    latents = base.encode_images(torch.zeros(1, 3, base.resolution, base.resolution))
    for network in (base.pipe.vae.encoder, base.pipe.vae.decoder):
        network.conv_in.weight.data.fill_(torch.inf)
    with pytest.raises(BadBase, match=r"float32\. Its weights, or .* damaged"):
        base.encode_images(torch.zeros(1, 3, base.resolution, base.resolution))
    with pytest.raises(BadBase, match=r"float32\. Its weights, or .* damaged"):
        base.decode_latents(latents)


def test_a_wider_format_is_advised_where_there_is_one(base_folder: Folder) -> None:
    base = load(base_folder, dtype=torch.bfloat16)
    latents = base.encode_images(torch.zeros(1, 3, base.resolution, base.resolution))
    base.pipe.vae.decoder.conv_in.weight.data.fill_(torch.inf)
    with pytest.raises(BadBase, match="Give --precision fp32"):
        base.decode_latents(latents)
