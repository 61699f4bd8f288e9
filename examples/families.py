"""Trains, resumes, draws and exports a persona on each family of bases, and writes what works as a Markdown table.

    python examples/families.py [OUT] [--only NAME] [--plan]

Each cell is really run, on the tiny random pipelines of the tests: their images mean nothing, all else is as with the
full-size bases. With --plan a training step of full-size SD 1.5 and SDXL is measured too, with random weights: half
an hour and 24 GB, on Linux only. Nothing is downloaded.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

HERE = Path(__file__).parent.absolute()
sys.path.insert(0, str(HERE.parent / "tests"))

import bases  # noqa: E402

import persona  # noqa: E402
from persona import families  # noqa: E402

FAMILIES = {
    "sd-eps": "Stable Diffusion 1 (noise)",
    "sd-v": "Stable Diffusion 2 (velocity)",
    "sdxl": "SDXL",
    "sd3": "SD3, SD3.5",
    "flux": "FLUX.1 dev",
    "flux-schnell": "FLUX.1 schnell",
}


REAL = {"sd-eps": "sd15", "sdxl": "sdxl"}
"""Those of which a full-size member is measured."""


@dataclass(frozen=True)
class Case:
    """A base, in the folder that the program works in under its name, and photos to teach it."""

    base: str
    photos: Path

    def train(self, name: str, **settings: Any) -> persona.Persona:
        """Train for four steps into a folder of that name, or open what was trained there."""
        chosen = {"steps": 4, "learning_rate": 0.05, "text_encoder": True, **settings}
        return persona.train(
            persona.TrainConfig(
                photos=self.photos, class_noun="dog", token="sks", base=self.base, out=Path(self.base + name), **chosen
            )
        )


def train(case: Case) -> bool:
    """Whether second factors, which start at nothing, have become something in denoiser and text encoders."""
    second = {key: value for key, value in weights(case.train("-straight")).items() if ".lora_B." in key}
    learnt = {key.partition(".")[0] for key, value in second.items() if any(value)}
    return any(key.startswith("text_encoder") for key in learnt) and bool(learnt & {"unet", "transformer"})


def resume(case: Case) -> bool:
    """Whether a run that was stopped half-way ends with the same bits."""
    case.train("-stopped", steps=2)
    return weights(case.train("-stopped")) == weights(case.train("-straight"))


def sample(case: Case) -> bool:
    """Whether the subject shows, and goes when its strength is none."""
    shown, bare = (draw(case, "-straight", scale=scale) for scale in (1.0, 0.0))
    return shown != bare


def interpolate(case: Case) -> bool:
    """Whether there is a series from the base to the subject."""
    made = persona.interpolate(
        persona.InterpolateConfig(prompts=("a [V] dog",), persona=(case.train("-straight").path,), frames=3)
    )
    return len(made.paths) == 3 and max(made.distances) > 0


def quantized(case: Case) -> bool:
    """Whether a frozen base in 4 or 8 bits is trained on, and the persona drawn with the whole one."""
    for bits in ("nf4", "int8"):
        case.train(f"-{bits}", quantize=bits)
        draw(case, f"-{bits}", scale=1.0)
    return True


def exports(case: Case) -> bool:
    """Whether each file is read back as it was meant, here and by diffusers, and the merged base draws the subject."""
    made = case.train("-straight")
    for to in ("diffusers", "kohya", "comfyui"):
        path = persona.export(persona.ExportConfig(persona=made.path, to=to)).path
        again = persona.import_lora(persona.ImportConfig(file=path, out=Path(f"{case.base}-{to}")))
        if draw(case, f"-{to}", scale=1.0, persona=again.path) != draw(case, "-straight", scale=1.0):
            return False
    merged = persona.export(persona.ExportConfig(persona=made.path, merge=True)).path
    return families.load(str(merged), device="cpu").pipeline == families.load(case.base, device="cpu").pipeline


def plan(case: Case) -> bool:
    """Whether a training step of a full-size member takes the memory that was planned, within 10 %."""
    command = [sys.executable, str(HERE / "plan_check.py"), REAL[case.base], "--resolution", "512"]
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode == 0


CELLS: dict[str, Callable[[Case], bool]] = {
    "train": train,
    "sample": sample,
    "interpolate": interpolate,
    "resume": resume,
    "quantized": quantized,
    "exports verified": exports,
}


def weights(made: persona.Persona) -> dict[str, bytes]:
    """Return the tensors of an adapter as bytes."""
    with safe_open(made.path / "adapter.safetensors", "np") as file:
        return {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118  # it is no mapping


def draw(case: Case, name: str, **how: Any) -> bytes:
    """Return a picture of a persona that was trained, as bytes."""
    from PIL import Image

    config = persona.SampleConfig(prompts=("a [V] dog",), n=1, **{"persona": Path(case.base + name), **how})
    (picture,) = persona.sample(config)
    with Image.open(picture.path) as image:
        return image.tobytes()


def row(name: str, photos: Path, checks: dict[str, Callable[[Case], bool]]) -> dict[str, str]:
    """Return the cells of a family: yes, or why not."""
    bases.save(name, Path(name))
    case, cells = Case(name, photos), {}
    for cell, check in checks.items():
        if check is plan and name not in REAL:
            cells[cell] = "not measured"
            continue
        try:
            cells[cell] = "yes" if check(case) else "no"
        except Exception as error:  # whatever it is, it belongs into the table
            cells[cell] = f"no: {type(error).__name__}: {str(error).splitlines()[0]}"
        print(f"{FAMILIES[name]}, {cell}: {cells[cell]}", file=sys.stderr, flush=True)
    return cells


def as_markdown(rows: dict[str, dict[str, str]]) -> str:
    """Return the table."""
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {FAMILIES[name]} | {' | '.join(cells.values())} |" for name, cells in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run every cell, print the table, and fail if one of them is not as it should be."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("out", nargs="?", type=Path, help="file of the table")
    options.add_argument("--only", choices=FAMILIES)
    options.add_argument("--plan", action="store_true")
    given = options.parse_args()
    out = given.out and given.out.absolute()
    checks = CELLS | ({"plan within 10 %": plan} if given.plan else {})
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"XDG_CACHE_HOME": folder, "HF_HUB_OFFLINE": "1"}
        names = [given.only] if given.only else list(FAMILIES)
        rows = {name: row(name, HERE / "photos" / "dog", checks) for name in names}
        os.chdir(HERE)
    print(as_markdown(rows))
    if out:
        out.write_text(as_markdown(rows), encoding="utf-8")
    if any(cell.startswith("no:") or cell == "no" for cells in rows.values() for cell in cells.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
