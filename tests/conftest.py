import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# One thread: tiny networks would only wait for others, and none survive a fork. Nothing of the user's own hub cache.
os.environ |= {
    "HF_HUB_CACHE": str(Path(__file__).with_name("no-hub")),
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}

import bases
import hypothesis
import numpy as np
import pytest
from PIL import Image

from persona.photos import Photo, read

if TYPE_CHECKING:
    from persona.families import Family

# A busy machine is no bug, and what fails here shall fail elsewhere.
hypothesis.settings.register_profile("busy", deadline=None, derandomize=True)
hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's own cache out of the tests, and the wishes that their terminal has."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
            patch.delenv(name, raising=False)
        patch.setattr(os, "fsync", lambda file: None)  # nobody pulls the plug here, and flushes are waited for
        yield folder


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Keep the collector from what libraries hold for good: looking through it took half of a tiny training."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Make what a test draws without a seed of its own the same each time, whatever ran before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that names the folder of a tiny base, made when it is first asked for. Do not change it."""
    made: dict[str, Path] = {}

    def folder(name: str = "sd-eps") -> Path:
        if name not in made:
            made[name] = bases.save(name, tmp_path_factory.mktemp("base") / name)
        return made[name]

    return folder


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as a device does that does not compute in bfloat16: nothing depends on what is drawn along with it."""
    import torch

    from persona import drawing

    monkeypatch.setattr(drawing, "number_format", lambda *_: torch.float32)


@pytest.fixture(params=bases.U_NETS)
def base(request: pytest.FixtureRequest, base_folder: Callable[[str], Path]) -> "Family":
    """Return each of the tiny U-Nets."""
    from persona import families  # takes seconds, which tests of other rooms need not

    return families.load(str(base_folder(request.param)), device="cpu")


@pytest.fixture
def one(base_folder: Callable[[str], Path]) -> "Family":
    """Return one of them."""
    from persona import families

    return families.load(str(base_folder("sd-v-zero")), device="cpu")


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three photos, square and not, of nothing in particular. Do not change it."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number, size in enumerate(((40, 40), (64, 40), (44, 44))):
        coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def photos(photo_folder: Path) -> list[Photo]:
    return read(photo_folder)
