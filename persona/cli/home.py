"""What ``persona`` alone and ``persona info`` show."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from persona import __version__
from persona.cli.display import print_json, terminal
from persona.cli.following import typed
from persona.errors import BadPersona

if TYPE_CHECKING:
    from persona.families import Family


def welcome() -> None:
    """Show what there is here, and what to type first."""
    from persona.folder import Persona, personas

    console = terminal()
    console.print(Text.assemble(("persona ", "bold"), __version__, ": teach a model your subject, draw it anywhere"))
    made = personas()
    if made:
        console.print(f"\nPersonas here, newest first: {', '.join(map(str, made))}", markup=False)
        noun = "CLASS"
        with suppress(BadPersona):  # one that is damaged is told when it is drawn
            noun = Persona.recorded(made[0]).class_noun
        steps = [typed("sample", [f"a [V] {noun} on the beach"]), typed("info", [made[0]])]
    else:
        console.print("\nPut three to six photos of one thing into a folder, and say what it is:")
        steps = ["persona train PHOTOS --class dog", 'persona sample "a [V] dog on the beach"']
    for step in steps:
        console.print(Text("  " + step, "bold cyan"), soft_wrap=True)
    console.print("\nEverything else: persona --help, persona COMMAND --help")


def inform(what: str, *, as_json: bool) -> None:
    """Show the facts of a persona, of a base, or of this machine.

    Args:
        what: folder of a persona, or its name under ``personas``; a base by its name, hub id or folder; empty for this
            machine.
        as_json: print them on stdout too.
    """
    card = None
    if not what:
        facts = _machine()
    elif _is_persona(Path(what)):
        facts = _persona(Path(what))
    else:
        facts, card = _base(what), _card(what)
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(Text(name, "dim"), Text(_shown(value), overflow="fold"))
    terminal().print(table)
    if card:
        terminal().print(Markdown(card))
    if as_json:
        print_json({"command": "info", **facts})


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return "  ".join(f"{name} {_shown(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # not 1.01e+03 GiB
    return str(value)


def _card(base: str) -> str | None:
    from persona.families import card

    path = card(base)
    return path.read_text(encoding="utf-8") if path else None


def _machine() -> dict[str, Any]:
    import psutil
    import torch

    from persona.folder import personas, versions

    libraries = versions()
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count()  # some virtual machines do not tell the first
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU")
    return {
        "version": __version__,
        "python": libraries.pop("python"),
        "libraries": libraries,
        "devices": devices or [f"CPU with {cores} cores"],
        "memory_gib": round(memory.total / 2**30, 1),
        "memory_free_gib": round(memory.available / 2**30, 1),
        "personas": list(map(str, personas())),
    }


def _is_persona(path: Path) -> bool:
    """Tell where a persona is, or should be, from a base by its folder, its name or its id on a hub."""
    from persona.folder import HOME, RECORD, folder_of

    if folder := folder_of(path):
        unfinished = path != Path("clay") and not (folder / "model_index.json").exists()  # its name is a base's first
        return unfinished or (folder / RECORD).is_file()
    if path.suffix == ".safetensors":
        return False
    return len(path.parts) > 1 and (path.parent == HOME or path.parent.is_dir())


def _persona(path: Path) -> dict[str, Any]:
    from persona.folder import Persona

    persona = Persona.open(path)
    return {
        "persona": str(persona.path),
        "token": persona.token,
        "class": persona.class_noun,
        "base": persona.base,
        "base_hash": persona.base_hash,
        "scale": persona.recommended_scale,
        "scores": dict(persona.scores),
        "settings": dict(persona.settings),
    }


def _base(name: str) -> dict[str, Any]:
    from persona.families import blueprint, here, known, outline

    one = next((one for short, one in known().items() if name in (short, one.repo)), None)
    facts: dict[str, Any] = {"base": name}
    if one:
        facts |= {"hub": one.repo, "download_gb": one.gigabytes, "licence": one.licence, "gated": one.gated}
    if here(name) is None:
        return facts | {"here": False} | _advice(blueprint(name))
    base = outline(name)
    return facts | {"here": True, "hash": base.hash} | _advice(base)


def _advice(base: "Family") -> dict[str, Any]:
    """Return what a base is, and the settings that suit it."""
    from dataclasses import asdict

    return {
        "pipeline": base.pipeline,
        "resolution": base.resolution,
        "parameters": sum(weights.numel() for weights in base.denoiser.parameters()),
        "recipe": asdict(base.recipe),
    }
