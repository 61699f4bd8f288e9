"""The import direction: a room may import only from the rooms below its own."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "persona"

LAYERS = [
    {"errors"},
    {"placing"},
    {"events", "config", "atomic", "eye", "sheet", "between", "metrics"},
    {"noise", "photos", "identity", "report", "film", "hub"},
    {"labelling"},
    {"families"},
    {"networks"},
    {"adapter", "encoder", "segment"},
    {"folder", "drawing", "prompts"},
    {"methods", "checkpoints", "exchange"},
    {"score"},
    {"priors", "references", "portraits"},
    {"sitters"},
    {"sample"},
    {"train", "export", "import_lora", "fading", "moving"},
    {"interpolate", "evaluate", "plan"},
    {"pretrain"},
    {"cli"},
]
HEAVY = ["torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "PIL", "numpy", "numba"]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def layer_of(room: str) -> int:
    return next(number for number, rooms in enumerate(LAYERS) if room in rooms)


def imported(path: Path) -> set[str]:
    """Return what a file imports, wherever in the file it does."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "persona":
            names |= {f"persona.{alias.name}" for alias in node.names if (PACKAGE / f"{alias.name}.py").exists()}
            names |= {f"persona.{alias.name}" for alias in node.names if (PACKAGE / alias.name).is_dir()}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("persona.")}


ROOMS = [path for path in sorted(PACKAGE.rglob("*.py")) if not room_of(path).startswith("__")]


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = room_of(path)
    others = imported_rooms(path) - {own}
    if own == "clay":
        assert others <= {"errors", "events", "atomic", "eye", "photos", "metrics"}, "clay is a leaf"
    else:
        # clay is a base like others: only look-ups of names and networks, what scores it and what made it know of it.
        if own not in {"families", "encoder", "segment", "score", "evaluate", "pretrain"}:
            assert "clay" not in others
        assert not {other for other in others - {"clay"} if layer_of(other) >= layer_of(own)}


def test_what_is_imported_is_required() -> None:
    """And not only by what else is required; what only some need, and a message names, is found by its name."""
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[^\w-]", one)[0].lower() for one in project["dependencies"]}
    names = {name.partition(".")[0] for path in PACKAGE.rglob("*.py") for name in imported(path)}
    others = names - sys.stdlib_module_names - {"persona", "rembg", "torchmetrics"}
    provided = {name: {one.lower().replace("_", "-") for one in by} for name, by in packages_distributions().items()}
    assert {name for name in others if required.isdisjoint(provided.get(name, ()))} == set()


def test_tests_can_be_collected_without_posix() -> None:
    """Those that need it ask for it themselves."""
    for path in Path(__file__).parent.glob("*.py"):
        assert not {"fcntl", "pty", "resource", "termios"} & imported(path), path.name


@pytest.mark.parametrize("path", sorted((PACKAGE / "families").glob("*.py")), ids=lambda path: path.stem)
def test_families_do_not_know_each_other(path: Path) -> None:
    from persona.families.family import Family

    families = {kind.__module__.rpartition(".")[2] for kind in Family.known.values()}
    modules = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    if path.stem in families:
        assert not {f"persona.families.{other}" for other in families - {path.stem}} & modules


@pytest.mark.parametrize("module", ["persona", "persona.cli", "persona.config", "persona.placing", "persona.events"])
def test_light_rooms_import_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
