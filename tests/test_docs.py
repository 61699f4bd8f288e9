"""What the documents say is so: commands parse, files exist, links lead somewhere, the example works."""

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer

import persona
from persona.clay import weights_folder
from persona.cli import app
from persona.config import TrainConfig
from persona.families import known
from persona.families.flux import Flux
from persona.families.recipe import RECIPE, Recipe
from persona.families.sd import StableDiffusion
from persona.families.sd3 import StableDiffusion3
from persona.families.sdxl import StableDiffusionXL

ROOT = Path(__file__).parent.parent
PAGES = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "persona/clay/CARD.md", *PAGES]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code(name: str) -> list[str]:
    """Return every line of code in a document, be it in a block or in a sentence."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&", block)]
    lines += re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [" ".join(line.split()) for line in lines]


def commands(name: str) -> list[str]:
    """Return every persona command in a document."""
    stripped = [re.sub(r"^accelerate launch .*?-m ", "", line).split(" > ")[0] for line in code(name)]
    return sorted({line for line in stripped if line.startswith("persona ")})


class _Understood(Exception):
    """A command or an example has taken its arguments."""


@pytest.mark.parametrize("line", [line for name in DOCUMENTS for line in commands(name)])
def test_commands_parse(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = shlex.split(line.removesuffix(" ..."))[1:]
    group = typer.main.get_command(app)
    known = group.commands  # type: ignore[attr-defined]
    if name == "pretrain" and arguments:
        known = known[name].commands
        name, *arguments = arguments
    if name.startswith("-") or name == "COMMAND" or "--help" in arguments:
        assert name in {*known, "COMMAND", "--help"}
    elif name == "info":
        known[name].make_context(name, arguments)
    elif arguments:

        def understood() -> None:
            raise _Understood  # the config is there, and is all right

        monkeypatch.setattr("persona.cli.display.Display", understood)
        context = known[name].make_context(name, arguments)
        if name == "sample":  # what it draws may go without saying
            context.params["prompts"] = context.params["prompts"] or ["a [V] dog"]
        with context, pytest.raises(_Understood):
            known[name].invoke(context)
    else:  # the name alone, in a sentence
        assert name in known


EXAMPLES = sorted({line for name in DOCUMENTS for line in code(name) if re.match(r"python examples/", line)})


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_understand_what_they_are_told(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, *arguments = shlex.split(line)[1:]
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser) -> None:
        parse(parser)  # ends the program where it is told what it does not know
        raise _Understood

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.chdir(ROOT)
    with pytest.raises((_Understood, SystemExit)) as ended:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    helped = isinstance(ended.value, SystemExit) and ended.value.code == 0
    assert helped if "--help" in arguments else ended.type is _Understood, line


def test_the_examples_are_listed() -> None:
    """Each example stands in the table of docs/measured.md, and takes its arguments by argparse."""
    table = (ROOT / "docs/measured.md").read_text(encoding="utf-8").partition("## The scripts")[2]
    assert re.findall(r"^\| `([\w.]+)`", table, re.MULTILINE) == sorted(
        path.name for path in (ROOT / "examples").glob("*.*") if path.is_file()
    )


def test_the_bases_with_short_names_are_listed() -> None:
    for short, one in known().items():
        link = f"[{one.repo}](https://huggingface.co/{one.repo})"
        gate = "gated " if one.gated else ""
        assert f"| `{short}` | {link} | {one.gigabytes} GB | {one.licence} | {gate}|" in README


def test_every_command_is_shown() -> None:
    shown = {line.split()[1] for line in commands("README.md")}
    assert set(typer.main.get_command(app).commands) <= shown  # type: ignore[attr-defined]


def test_the_keys_of_a_recipe_are_told() -> None:
    (section,) = re.findall(r"^### recipe.json$(.*?)^##", README, re.MULTILINE | re.DOTALL)
    keys = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)))
    assert sorted(keys) == sorted(field.name for field in fields(Recipe))


def test_the_table_of_defaults_is_so() -> None:
    rows = dict(re.findall(r"^\| `--([\w-]+)` \| (.*?) \| [^|]+ \|$", README, re.MULTILINE))
    settings = {name: text.split(" | ") for name, text in rows.items()}
    clay = Recipe().adjusted(weights_folder() / RECIPE)
    for family in (StableDiffusion, StableDiffusionXL, StableDiffusion3, Flux):
        for place, recipe in enumerate((family.recommended, clay)):
            told = {name: texts[place] for name, texts in settings.items()}
            steps = (recipe.steps_per_photo, recipe.min_steps, recipe.max_steps)
            assert told["steps"] == "{} a photo, {} to {}".format(*steps)
            assert told["text-encoder"] == ("on" if recipe.text_encoder else "off")
            for name in ("rank", "learning-rate", "text-learning-rate", "batch", "priors", "snr-gamma",
                         "checkpoint-every", "score-every"):  # fmt: skip
                assert float(re.split("[ ,]", told[name])[0]) == getattr(recipe, name.replace("-", "_")), name
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    for texts in zip(*settings.values(), strict=True):
        told = dict(zip(settings, texts, strict=True))
        assert told["prior"] == f"`{defaults['prior']}`"
        assert told["flip"] == ("on" if defaults["flip"] else "off")
        assert [int(told[name]) for name in ("accumulate", "prior-weight")] == [
            defaults["accumulate"], defaults["prior_weight"]
        ]  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if link.startswith("https://"):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


def anchors(document: Path) -> set[str]:
    """Return what links to the headings of a document end in, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", *PAGES])
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:persona|tests|examples)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_tree_is_the_repository() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```\npersona/\n(.*?)```", text, re.DOTALL)
    assert block
    tree = re.findall(r"^( *)([\w./]+)", block[1], re.MULTILINE)
    rooms = {name for indent, name in tree if indent}
    assert all((ROOT / name).exists() for indent, name in tree if not indent)
    sources = (ROOT / "persona").iterdir()
    present = {
        path.name + "/" if path.is_dir() else path.name for path in sources if not path.name.startswith("__pycache")
    }
    assert rooms == present - {"__main__.py", "py.typed"}


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\](?: - \d{4}-\d\d-\d\d)?$", text, re.MULTILINE)
    assert versions[0] == "Unreleased" or versions[0] == persona.__version__
    sections = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_ci_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert script.rstrip().endswith("nox")
    told = re.findall(r"&& pip install (.*) && nox\n", README)
    assert told == re.findall(r"^pip install --quiet --disable-pip-version-check (.*)\n", script, re.MULTILINE)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (version,) = set(re.findall(r"torch==(\S+)", README + contributing + script))
    wanted = re.findall(r'"torch>=(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert wanted == [version.rpartition(".")[0]]


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(("identity", "passes"), [("0.82", True), ("0.41", False), ("null", False)])
def test_the_example_for_ci_fails_on_a_bad_score(tmp_path: Path, identity: str, passes: bool) -> None:
    stand_in = tmp_path / "persona"
    stand_in.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = train ] && echo \'{{"scores": {{"identity": {identity}}}}}\'\n'
        '[ "$1" = sample ] && echo \'{"folder": "x", "pictures": [1, 2, 3, 4]}\'\n'
        "exit 0\n"
    )
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["/bin/sh", ROOT / "examples/ci.sh"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) is passes, done.stderr
