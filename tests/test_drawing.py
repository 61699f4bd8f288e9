import errno
import gc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import SafetensorError

from persona import drawing, families
from persona.drawing import spared
from persona.errors import BadOption, out_of_memory
from persona.events import Event, Note, Progress
from persona.families import Family
from persona.families.conditioning import Reader


def test_short_memory_makes_smaller_batches(
    base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    whole = Family.draw

    def tight(self: Family, prompts: list[str], seeds: list[int], **how: Any) -> list[Image.Image]:
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("no room")
        return whole(self, prompts, seeds, **how)

    monkeypatch.setattr(Family, "draw", tight)
    jobs = [drawing.Job("a dog", seed, tmp_path / f"{seed}.png") for seed in range(5)]
    events: list[Event] = []
    drawing.draw(base, jobs, events.append, steps=1, size=(32, 32))
    assert all(job.path.exists() for job in jobs)
    assert Note("Memory is short: drawing 2 at a time.") in events


def test_where_even_one_is_too_much_it_is_drawn_in_tiles(
    base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    whole, enough = Family.decode_latents, True

    def tight(self: Family, latents: torch.Tensor) -> list[Image.Image]:
        if not (enough and self.pipe.vae.use_tiling):
            raise torch.OutOfMemoryError("no room")
        return whole(self, latents)

    monkeypatch.setattr(Family, "decode_latents", tight)
    jobs = [drawing.Job("a dog", 1, tmp_path / "1.png")]
    events: list[Event] = []
    drawing.draw(base, jobs, events.append, steps=1, size=(32, 32))
    assert jobs[0].path.exists()
    assert Note("Memory is short: images in tiles.") in events
    assert not base.pipe.vae.use_tiling  # a training may go on with it, which chooses for itself
    enough = False
    with pytest.raises(torch.OutOfMemoryError):
        drawing.draw(base, jobs, steps=1, size=(32, 32))


def test_what_many_pictures_show_is_read_once(
    base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    read: list[str] = []
    encode = base.encode_prompts

    def noted(prompts: Sequence[str]) -> Any:
        read.extend(prompts)
        return encode(prompts)

    monkeypatch.setattr(base, "_read", Reader(noted))
    jobs = [drawing.Job("a dog", seed, tmp_path / f"{seed}.png") for seed in (1, 2)]
    drawing.draw(base, jobs, steps=1, size=(32, 32), batch=1)
    assert read == ["a dog", ""]
    alone = base.draw(["a dog"], [2], steps=1, size=(32, 32))[0]
    assert read == ["a dog", ""] * 2  # what learns, or is worn with another strength, reads anew
    with Image.open(jobs[1].path) as image:
        assert image.tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("gigabytes", "room", "how"),
    [
        ((1.7, 0.2, 0.2), 8, (None, False)),  # SD 1.5
        ((5.1, 1.4, 0.3, 0.2), 24, (None, False)),  # SDXL
        ((5.1, 1.4, 0.3, 0.2), 8, (None, True)),
        ((23.8, 9.5, 0.2, 0.2), 80, (None, False)),  # FLUX.1
        ((23.8, 9.5, 0.2, 0.2), 40, (None, True)),
        ((23.8, 9.5, 0.2, 0.2), 24, ("nf4", True)),
    ],
)
def test_what_is_drawn_with_fits(gigabytes: tuple[float, ...], room: int, how: tuple[str | None, bool]) -> None:
    assert spared([round(size * 2**30) for size in gigabytes], room * 2**30) == how


def test_networks_that_come_when_they_are_needed_draw_the_same(base_folder: Callable[[str], Path]) -> None:
    folder = str(base_folder("sdxl"))
    there, coming = (families.load(folder, device="cpu", offload=offload) for offload in (False, True))
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    for base in (there, coming):
        assert base.draw(["a dog"], [1])[0].tobytes() == there.draw(["a dog"], [1])[0].tobytes()
        assert torch.equal(*(one.encode_images(pixels, torch.Generator().manual_seed(0)) for one in (there, base)))
    coming.remember(["a dog", ""])
    coming.free_text_encoders()
    coming.settle()
    assert not [part for part in coming.pipe.components.values() if hasattr(part, "_hf_hook")]
    assert coming.draw(["a dog"], [1])[0].tobytes() == there.draw(["a dog"], [1])[0].tobytes()


def test_pictures_are_kept_as_soon_as_they_are_drawn(
    base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    jobs = [drawing.Job("a dog", seed, tmp_path / f"{seed}.png", {"seed": str(seed)}) for seed in range(3)]
    there: list[int] = []

    def watch(event: Event) -> None:
        assert isinstance(event, Progress)
        assert event.done == len(list(tmp_path.glob("*.png")))
        there.append(event.done)

    drawing.draw(base, jobs, watch, steps=1, size=(32, 32), batch=1)
    assert there == [0, 1, 2, 3]
    with Image.open(jobs[2].path) as image:
        assert image.info["seed"] == "2"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, other allocations: 1 GB, max allowed: 9 GB)"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to ..."
        ),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        SafetensorError("Error while mapping: L'espace du fichier de pagination est insuffisant. (os error 1455)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        MemoryError(),
    ],
)
def test_short_memory_is_known_on_every_device(error: Exception) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(("native", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_that_only_imitates_bf16_computes_in_fp32(
    monkeypatch: pytest.MonkeyPatch, wanted: torch.dtype, *, native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert drawing.number_format("auto", torch.device("cuda")) == wanted


def test_other_errors_are_not_taken_for_short_memory(
    base_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Family, prompts: list[str], seeds: list[int], **how: Any) -> list[Image.Image]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Family, "draw", broken)
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    with pytest.raises(RuntimeError, match="a bug"):
        drawing.draw(base, [drawing.Job("a dog", 0, tmp_path / "0.png")] * 2, steps=1, size=(32, 32))


@pytest.mark.parametrize(("limit", "used", "spare"), [(*drawing._LIMITS[0][1:], 300), (*drawing._LIMITS[1][1:], 400)])
def test_what_a_container_may_not_take_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str, spare: int
) -> None:
    monkeypatch.setattr(drawing, "_LIMITS", ((tmp_path / "none", "none", "none"), (tmp_path, limit, used)))
    cpu = torch.device("cpu")
    files = {"inactive_file": 300} | ({"total_inactive_file": 400} if spare == 400 else {})
    (tmp_path / "memory.stat").write_text("".join(f"{name} {size}\n" for name, size in files.items()))
    (tmp_path / used).write_text("1000\n")
    (tmp_path / limit).write_text("max\n")
    assert drawing.free(cpu) > 2**20
    (tmp_path / limit).write_text("5000\n")
    assert drawing.free(cpu) == 4000 + spare


def test_a_drive_that_is_not_there_is_no_folder_to_write_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)  # not even its root, as of drives on Windows
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    with pytest.raises(BadOption, match="--out"):
        drawing.check_output(Path("pictures"))


def test_memory_that_nothing_refers_to_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base that is done with refers to itself, and on a GPU what it took is kept for later."""

    class Base:
        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        gone = weakref.ref(Base())
        assert gone() is not None
        assert drawing.free(torch.device("cpu")) > 0
        assert gone() is None
    finally:
        gc.enable()


def test_a_folder_that_cannot_be_written_is_found_out_before_the_work(tmp_path: Path) -> None:
    drawing.check_output(tmp_path / "new" / "deeper")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(BadOption, match="--out"):
            drawing.check_output(folder)


@pytest.mark.parametrize(("asked", "side"), [(None, 32), (64, 64), (61, 64), (1, 8), (33, 32)])
def test_pictures_have_the_nearest_size_that_the_base_can_draw(
    base_folder: Callable[..., Path], asked: int | None, side: int
) -> None:
    base = families.load(str(base_folder("sd-v-zero")), device="cpu")
    assert drawing.size_of(base, asked) == (side, side)


def test_a_size_beyond_the_places_that_a_base_knows_is_refused(base_folder: Callable[..., Path]) -> None:
    base = families.load(str(base_folder("sd3")), device="cpu")
    assert drawing.size_of(base, 128) == (128, 128)
    with pytest.raises(BadOption, match=r"up to 128 pixels .*--resolution"):
        drawing.size_of(base, 136)
