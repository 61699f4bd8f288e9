"""What the documents say is so: commands parse, files exist, links lead somewhere, the example works."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

import persona
from persona.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(text: str) -> list[str]:
    """Return every persona command that stands in code, in a block or in a line."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in re.split(r"\n|&&", block)]
    lines += re.findall(r"`((?:accelerate launch -m )?persona [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    stripped = [line.strip().removeprefix("accelerate launch -m ").split(" > ")[0] for line in lines]
    return sorted({line for line in stripped if line.startswith("persona ")})


@pytest.mark.parametrize("line", [line for name in DOCUMENTS for line in commands((ROOT / name).read_text())])
def test_commands_parse(line: str) -> None:
    name, *arguments = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    known = group.commands  # type: ignore[attr-defined]
    if name.startswith("-") or name == "COMMAND" or "--help" in arguments:
        assert name in {*known, "COMMAND", "--help"}
    elif arguments or name == "info":
        known[name].make_context(name, arguments)
    else:  # the name alone, in a sentence
        assert name in known


def test_every_command_is_shown() -> None:
    shown = {line.split()[1] for line in commands(README)}
    assert set(typer.main.get_command(app).commands) <= shown  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:persona|tests|examples)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_tree_is_the_repository() -> None:
    block = re.search(r"```\npersona/\n(.*?)```", README, re.DOTALL)
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
    assert "&& nox\n" in README


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
