"""Evaluations as users run them: on tiny real bases and networks, stopped, resumed, and asked for what cannot be."""

import html
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import personas
import pytest
import tiny_networks
import torch
from accelerate import PartialState
from bases import noise
from hypothesis import given
from hypothesis import strategies as st
from pictures import DREAMBENCH, grain
from PIL import Image
from processes import printed
from test_judge import small
from torch.nn.functional import normalize
from typer.testing import CliRunner

from persona import drawing, families, identity, segment
from persona import networks as persona_networks
from persona.clay import encoder, segmenter, weights_folder, world
from persona.clay.judge import Judge
from persona.cli import app
from persona.config import CompareConfig, EvaluateConfig
from persona.errors import BadBase, BadOption, BadPhotos, BadPrompt, PersonaError
from persona.evaluate import Evaluation, clay, compare, entrants, evaluate, methods, pictures, scoring, showing
from persona.evaluate import run as running
from persona.evaluate.subjects import INDEX, Subject, chosen, papers_prompts, read_dreambench
from persona.events import Event, Note, Progress, silent
from persona.families.vocabulary import read_words, unknown
from persona.folder import ADAPTER, Persona
from persona.methods import jedi, telling
from persona.methods.jedi import JeDi
from persona.methods.subject_diffusion import SubjectDiffusion
from persona.networks import CLIP, CLIPSEG, DINO
from persona.photos import Photo
from persona.photos import pictures as read_photos
from persona.pretrain.clay.judging import HEADS
from persona.report import Row

LIST = """Classes

subject_name,class
rex,dog
pot,teapot
gone,toy

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the snow'.format(unique_token, class_token),
'a red {0} {1}'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} on the beach'.format(unique_token, class_token),
'a {0} {1} wearing a red hat'.format(unique_token, class_token)
]
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_networks.save(tmp_path_factory.mktemp("networks"), "dino-vits16", "clip-vit-base-patch32")


@pytest.fixture(scope="module")
def dog(tmp_path_factory: pytest.TempPathFactory, base_folder: Callable[..., Path]) -> Path:
    return personas.make(tmp_path_factory.mktemp("personas") / "rex", base_folder(), alpha=16).path


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CLASS_PICTURES", 1)


@pytest.fixture
def config(dog: Path, photo_folder: Path, base_folder: Callable[..., Path], networks: Path, tmp_path: Path) -> Any:
    return EvaluateConfig(
        names=(str(dog), "base"), photos=(photo_folder,), base=str(base_folder()), networks=networks,
        out=tmp_path / "out", prompts="2", n=1, steps=1,
    )  # fmt: skip


def values(found: Evaluation) -> dict[str, dict[str, float]]:
    """Return the means of each row, without those that are times."""
    return {row.label: {name: cell.mean for name, cell in row.cells.items() if "," not in name} for row in found.rows}


def listened(events: list[Event]) -> tuple[list[str], list[str]]:
    """Return what was said, and which stages did something."""
    notes = [event.text for event in events if isinstance(event, Note)]
    return notes, [event.stage for event in events if isinstance(event, Progress) and event.done < event.total]


def test_what_has_one_name_is_told_apart(config: EvaluateConfig, dog: Path, photo_folder: Path, tmp_path: Path) -> None:
    """Two personas in folders of one name, and photos of two subjects in such folders, with the base for each."""
    other = shutil.copytree(dog, tmp_path / "old" / "rex")
    cats = tmp_path / "cats" / photo_folder.name
    cats.mkdir(parents=True)
    for number, path in enumerate(sorted(photo_folder.glob("*.png"))):
        with Image.open(path) as image:
            image.rotate(90).save(cats / f"{number}.png")
    both = replace(config, names=(str(dog), str(other)), prompts="1")
    found = evaluate(both)
    own = [f"{path.parent.name}/rex" for path in (dog, other)]
    assert [row.label for row in found.rows][-2:] == own
    found = evaluate(replace(both, names=("base",), photos=(photo_folder, cats), class_noun="dog", out=tmp_path / "b"))
    assert {shot.subject for shot in found.shots} == {
        f"{path.parent.name}/{path.name}" for path in (photo_folder, cats)
    }
    assert "photos of another subject" in [row.label for row in found.rows]


def test_a_persona_is_not_taken_for_a_method(config: EvaluateConfig, dog: Path, tmp_path: Path) -> None:
    named = shutil.copytree(dog, tmp_path / "mine" / "base")
    found = evaluate(replace(config, names=(str(named), "base"), prompts="1"))
    assert [row.label for row in found.rows][-2:] == ["mine/base", "base"]


def test_a_persona_by_two_names_is_refused(config: EvaluateConfig, dog: Path) -> None:
    with pytest.raises(BadOption, match=r"Two of .* are the same persona"):
        evaluate(replace(config, names=(str(dog), f"{dog}/../{dog.name}")))


def test_a_persona_and_its_base_on_one_table(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "CLASS_PICTURES", 3)
    events: list[Event] = []
    found = evaluate(replace(config, n=2), events.append)
    assert [row.label for row in found.rows] == ["photos of the same subject", "rex", "base"]
    assert {"DINO", "identity", "CLIP-I", "CLIP-T", "PRES", "drift", "memorisation", "copies"} <= set(
        values(found)["rex"]
    )
    assert values(found)["base"]["drift"] == pytest.approx(0, abs=1e-4)
    assert values(found)["rex"]["drift"] > 0
    about = [shot for shot in found.shots if "[V]" in shot.prompt]
    assert len(about) == 2 * 2 * 2
    assert {shot.seed for shot in about} == {0, 1}
    assert [shot.seed for shot in found.shots if (shot.label, shot.prompt) == ("rex", "a dog")] == list(range(2 * 3))
    by_both = {label: {(s.prompt, s.seed) for s in found.shots if s.label == label} for label in ("rex", "base")}
    assert by_both["rex"] == by_both["base"]  # the same prompts and seeds
    record = json.loads((config.out / "evaluation.json").read_text())
    assert [row["label"] for row in record["rows"]] == [row.label for row in found.rows]
    assert {"python", "torch"} <= record["settings"]["versions"].keys()
    for name in ("evaluation.json", "report.html"):  # where things are on this machine is nobody's business
        said = (config.out / name).read_text()
        assert not any(str(path) in said for path in (config.out.parent, *config.photos, config.base, config.networks))
    assert found.table.read_text().startswith("| | DINO |")
    assert "rex, base on" in found.report.read_text()
    notes, _ = listened(events)
    assert any("DIV (LPIPS) is not available here, and left out" in note for note in notes)


def test_what_to_type_next_draws_with_what_was_measured(config: EvaluateConfig, dog: Path) -> None:
    options = ["--photos", *map(str, config.photos), "--base", str(config.base), "--networks", str(config.networks)]
    how = ["--prompts", "1", "-n", "1", "--steps", "1", "--out", str(config.out)]
    result = CliRunner().invoke(app, ["evaluate", str(dog), *options, *how], env={"COLUMNS": "1000"})
    assert result.exit_code == 0, result.output
    assert f"--persona {dog} --base {config.base} -n 8" in result.stderr


@pytest.mark.usefixtures("exact")
def test_a_stopped_evaluation_goes_on(config: EvaluateConfig) -> None:
    config = replace(config, batch=1)  # on some CPUs a picture's last digits depend on those that are drawn with it
    whole = evaluate(replace(config, out=config.out / "whole"))

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.stage == "Drawing rex" and event.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(config, stop)
    kept = {path: path.stat().st_mtime_ns for path in config.out.rglob("*.png")}
    assert kept
    events: list[Event] = []
    found = evaluate(config, events.append)
    assert values(found) == values(whole)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    events.clear()
    assert values(evaluate(config, events.append)) == values(whole)
    assert listened(events)[1] == []  # nothing is drawn or measured twice


def test_another_evaluation_in_one_folder_overwrites_none(config: EvaluateConfig) -> None:
    config = replace(config, names=("base",), class_noun="dog", prompts="1")
    first = evaluate(config)
    before = first.report.read_bytes()
    events: list[Event] = []
    evaluate(config, events.append)
    assert sorted(path.name for path in config.out.glob("*.*")) == ["evaluation.json", "report.html", "table.md"]
    evaluate(replace(config, prompts="2"), events.append)
    assert (config.out / "report-2.html").read_bytes() == before
    assert first.report.read_bytes() != before
    assert any("is now in report-2.html" in note for note in listened(events)[0])


def test_a_folder_of_networks_that_is_not_there_is_refused(config: EvaluateConfig, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"--networks .*nowhere is no folder"):
        evaluate(replace(config, networks=tmp_path / "nowhere"))


def test_a_damaged_picture_and_a_lost_score_are_made_again(config: EvaluateConfig) -> None:
    before = values(evaluate(config))
    picture = next(path for path in sorted(config.out.rglob("pictures/rex*/*.png")) if "zwx" in path.name)
    picture.write_bytes(picture.read_bytes()[:-40])
    for scores in config.out.rglob("scores-*.json"):
        scores.write_text("{")
    again = values(evaluate(config))
    # What is drawn in another batch is the same but for rounding.
    assert {row: pytest.approx(cells, abs=1e-3) for row, cells in before.items()} == again


def test_what_changes_the_scores_is_measured_again(config: EvaluateConfig, networks: Path) -> None:
    evaluate(replace(config, networks=networks.parent))  # none there
    assert "DINO" in values(evaluate(config))["rex"]


def test_checkpoints_and_strengths_are_tried_with_the_best_marked(config: EvaluateConfig, dog: Path) -> None:
    config = replace(config, names=(str(dog),), prompts="1", checkpoints=True, scales=True)
    found = evaluate(config)
    steps, scales = ["rex, step 1", "rex, step 2"], [f"rex, scale {scale:g}" for scale in (0.4, 0.6, 0.8, 1.0, 1.2)]
    assert [row.label for row in found.rows[1:]] == steps + scales
    assert [row.line for row in found.rows[1:]] == ["rex"] * 2 + ["rex by scale"] * 5
    assert sum(row.best for row in found.rows) == 1
    rows = values(found)
    assert rows["rex, step 2"] == rows["rex, scale 1"]  # the same weights and strength, whatever they are called
    assert rows["rex, step 1"] != rows["rex, step 2"]
    drift = [rows[label]["drift"] for label in scales]
    assert drift[0] < drift[-1]


def test_strengths_are_not_tried_of_what_is_only_on_or_off(config: EvaluateConfig, tmp_path: Path) -> None:
    turned = personas.make(tmp_path / "turned", Path(str(config.base)), kind="oft")
    with pytest.raises(BadOption, match="--scales"):
        evaluate(replace(config, names=(str(turned.path),), scales=True))
    assert not list(config.out.rglob("*.png"))


def test_who_has_no_checkpoints_is_said(config: EvaluateConfig, dog: Path, tmp_path: Path) -> None:
    whole = shutil.copytree(dog, tmp_path / "whole", ignore=shutil.ignore_patterns("checkpoints"))
    Persona.open(whole).write(whole / ADAPTER)
    events: list[Event] = []
    found = evaluate(replace(config, names=(str(whole),), prompts="1", checkpoints=True), events.append)
    assert [row.label for row in found.rows[1:]] == ["whole"]
    assert any("has no checkpoints" in note for note in listened(events)[0])


def test_a_base_in_fewer_bits_is_said(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = families.load(str(config.base), device="cpu", bits="nf4")
    monkeypatch.setattr(entrants, "open_base", lambda *_, **__: packed)
    evaluate(replace(config, names=("base",), class_noun="dog", prompts="1"))
    ((base, how),) = json.loads((config.out / "evaluation.json").read_text())["settings"]["drawn with"].items()
    assert base == f"{Path(str(config.base)).name} {packed.hash[:12]}"  # two bases may be in folders of one name
    assert how.endswith("nf4 in float32")


def test_where_guidance_starts_is_said_and_decides_what_is_drawn(
    config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, names=("base",), class_noun="dog", prompts="1")
    evaluate(config)
    late = families.load(str(config.base), device="cpu")
    late.recipe = replace(late.recipe, guidance_start=0.5)
    monkeypatch.setattr(entrants, "open_base", lambda *_, **__: late)
    evaluate(config)
    (how,) = json.loads((config.out / "evaluation.json").read_text())["settings"]["drawn with"].values()
    assert ", guidance 7.5 after 50% of them," in how
    assert len(list(config.out.glob("pictures/base-*"))) == 2


def test_the_worst_that_the_page_shows_are_not_the_bases() -> None:
    three: Any = [SimpleNamespace(label=label) for label in ("rex", "bob", "base")]
    found: Any = SimpleNamespace(rows=[Row("rex"), Row("bob", best=True), Row("base")])
    assert showing._used(found, three) == ["bob"]
    found.rows = [Row(one.label) for one in three]
    assert showing._used(found, three) == ["rex", "bob"]
    assert showing._used(found, three[2:]) == ["base"]


def test_comparing_says_what_the_first_is_above_the_second(config: EvaluateConfig, tmp_path: Path) -> None:
    shared: dict[str, Any] = {name: getattr(config, name) for name in ("names", "photos", "base", "networks", "steps")}
    found = compare(CompareConfig(**shared, out=tmp_path / "comparison", prompts="2", n=1))
    rows = values(found)
    above = rows["rex minus base"]
    assert above["DINO"] == pytest.approx(rows["rex"]["DINO"] - rows["base"]["DINO"], abs=1e-6)
    assert "rex minus base" in found.report.read_text()


def test_two_of_different_subjects_are_not_compared(config: EvaluateConfig, tmp_path: Path) -> None:
    tom = personas.make(tmp_path / "tom", Path(str(config.base)), class_noun="cat")
    shared: dict[str, Any] = {name: getattr(config, name) for name in ("base", "networks", "steps", "out")}
    with pytest.raises(BadOption, match="rex and tom are of different subjects"):
        compare(CompareConfig(**shared, names=(config.names[0], str(tom.path))))
    assert not config.out.exists()


def test_of_several_processes_one_says_what_a_comparison_lacks(
    config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartialState, "is_main_process", False)
    shared: dict[str, Any] = {name: getattr(config, name) for name in ("names", "base", "networks", "steps", "out")}
    events: list[Event] = []
    compare(CompareConfig(**shared, prompts="1", n=1), events.append)
    assert not events


def test_own_prompts_with_markup_are_shown_and_not_run(config: EvaluateConfig, tmp_path: Path) -> None:
    evil = 'a [V] {class} <script>alert(1)</script>"|'
    (tmp_path / "prompts.txt").write_text(f"{evil}\na [V] dog on the beach\n")
    found = evaluate(replace(config, prompts=str(tmp_path / "prompts.txt")))
    assert evil.replace("{class}", "dog") in {shot.prompt for shot in found.shots}
    assert found.report.read_text().count("<script") == 1


def test_what_makes_figures_say_less_stands_beside_them(config: EvaluateConfig, tmp_path: Path) -> None:
    """Two personas of one album by different nouns, and a prompt that says neither, at length."""
    tom = personas.make(tmp_path / "tom", Path(str(config.base)), class_noun="cat")
    (tmp_path / "prompts.txt").write_text(f"a [V] on the beach{' in the snow' * 30}\n")
    events: list[Event] = []
    config = replace(config, names=(config.names[0], str(tom.path)), prompts=str(tmp_path / "prompts.txt"))
    found = evaluate(config, events.append)
    page, kept = html.unescape(found.report.read_text()), json.loads((config.out / "evaluation.json").read_text())
    for said in ("tom draws cat where dog is", "does not say dog after", "not say cat after", "zwx on the beach in"):
        (told,) = (note for note in listened(events)[0] if said in note)
        assert told in page
        assert told in kept["notes"]


def test_without_photos_only_what_was_asked_for_is_measured(config: EvaluateConfig) -> None:
    events: list[Event] = []
    found = evaluate(replace(config, photos=()), events.append)
    assert "CLIP-T" in values(found)["rex"]
    assert "DINO" not in values(found)["rex"]
    assert any("Without --photos" in note for note in listened(events)[0])


def test_photos_are_those_that_a_persona_learnt_from(
    config: EvaluateConfig, dog: Path, photo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "others").mkdir()
    shutil.copy(next(photo_folder.iterdir()), tmp_path / "others")
    picture = grain((40, 40), 60)
    picture.save(tmp_path / "others/noise.png")
    learnt = shutil.copytree(dog, tmp_path / "bob")
    photos = tuple(photo.sha256 for photo in read_photos(photo_folder))
    replace(Persona.open(learnt), photos=photos).write(learnt / ADAPTER)
    both = replace(config, names=(str(learnt),), photos=(tmp_path / "others", photo_folder), class_noun="cat")
    found = evaluate(replace(both, names=(str(learnt), "base")))
    assert {shot.subject for shot in found.shots if shot.label == "bob"} == {photo_folder.name}
    assert "as they do not draw all of the subjects: bob." in found.report.read_text()
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    picture.save(strangers / "noise.png")
    events: list[Event] = []
    found = evaluate(replace(both, photos=(strangers,)), events.append)
    (told,) = (note for note in listened(events)[0] if "bob learned from other photos than those in strangers" in note)
    assert told in json.loads((config.out / "evaluation.json").read_text())["notes"]
    assert told in found.report.read_text()
    (tmp_path / "more").mkdir()
    picture.rotate(90).save(tmp_path / "more/noise.png")
    with pytest.raises(BadOption, match="learned from none of the --photos"):
        evaluate(replace(both, photos=(strangers, tmp_path / "more")))
    with pytest.raises(BadOption, match=r"is not known. Give the --photos of its subject alone\."):
        evaluate(replace(both, names=(str(dog),)))


@pytest.fixture
def judged(base_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a tiny base that ships with a judge."""
    folder = shutil.copytree(base_folder(), tmp_path / "judged")
    judge = small()
    judge.others = {"dog": normalize(torch.randn(4, 128), dim=1)}
    judge.save(folder / "judge")
    return folder


def test_a_base_with_a_judge_is_measured_by_it(config: EvaluateConfig, judged: Path, tmp_path: Path) -> None:
    config = replace(config, networks=None)  # in the hub's cache, which has none
    events: list[Event] = []
    found = evaluate(replace(config, base=str(judged), prompts="3"), events.append)
    (told,) = (note for note in listened(events)[0] if "never shown" in note)
    assert "what it says of their images is a guess" in told
    assert told in found.report.read_text()
    assert str(judged.parent) not in told
    assert {"identity", "prompt", "leak", "class kept", "drift"} <= set(values(found)["base"])
    assert "DINO" not in values(found)["base"]
    assert (found.fidelity, found.prompt) == ("identity", "prompt")
    (tmp_path / "prompts.txt").write_text("a [V] dog on the moon\n")
    events.clear()
    found = evaluate(replace(config, base=str(judged), prompts=str(tmp_path / "prompts.txt")), events.append)
    (told,) = (note for note in listened(events)[0] if "your own prompts" in note)
    assert "prompt" not in values(found)["base"]
    assert told in found.report.read_text()


def test_photographs_are_measured_by_networks_that_are_here(
    config: EvaluateConfig, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, names=("base",), class_noun="dog", base=str(judged), prompts="1")
    events: list[Event] = []
    assert {"DINO", "CLIP-T", "PRES"} <= set(values(evaluate(config, events.append))["base"])
    assert not any("never shown" in note for note in listened(events)[0])
    monkeypatch.setattr(running, "absent", lambda: [CLIPSEG])
    assert evaluate(replace(config, networks=None)).fidelity == "DINO"
    monkeypatch.setattr(running, "strange", lambda *_: False)
    assert "class kept" in values(evaluate(config))["base"]  # what its judge knows is the judge's


def test_another_judge_measures_again_what_is_there(config: EvaluateConfig, judged: Path) -> None:
    how: dict[str, Any] = {"networks": None, "prompts": "1", "n": 1}
    config = replace(config, names=("base",), class_noun="dog", base=str(judged), **how)
    before = values(evaluate(config))["base"]
    judge = Judge.load(judged / "judge")
    judge.ceiling = 0.5
    judge.others = {"dog": normalize(torch.randn(4, 128) + 1, dim=1)}
    judge.save(judged / "judge")
    events: list[Event] = []
    after = values(evaluate(config, events.append))["base"]
    assert {stage.split()[0] for stage in listened(events)[1]} == {"Measuring"}  # nothing is drawn again
    assert after["identity"] != before["identity"]
    assert after["prompt"] == before["prompt"]


def test_clays_edition_is_one_command(judged: Path, tmp_path: Path) -> None:
    how = ["--subjects", "dog,car", "--prompts", "2", "-n", "1", "--steps", "1", "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(app, ["evaluate", "base", "--dreambench", "clay", "--base", str(judged), *how, "--json"])
    assert told.exit_code == 0, told.output
    assert "never shown" not in told.stderr  # they are renders
    page = Path(json.loads(told.stdout)["report"]).read_text()
    assert "2 subjects of clay" in page
    record = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert record["settings"]["dreambench"] == "clay"
    labels = [row["label"] for row in record["rows"]]
    assert labels == ["photos of the same subject", "photos of another subject", "base"]
    assert {"identity", "prompt", "class kept"} <= record["rows"][-1]["scores"].keys()
    assert len(list((tmp_path / "out").rglob("4.png"))) == 2  # five photos of each


PROGRAM = """
import json, sys
from pathlib import Path
from persona.config import EvaluateConfig
from persona.evaluate import evaluate, pictures

pictures.CLASS_PICTURES = 1
given = json.loads(sys.argv[1])
photos, networks = tuple(map(Path, given.pop("photos"))), Path(given.pop("networks"))
paths = {"photos": photos, "networks": networks, "out": Path("shared")}
found = evaluate(EvaluateConfig(names=tuple(given.pop("names")), **paths, **given))
print(json.dumps({row.label: {name: cell.mean for name, cell in row.cells.items()} for row in found.rows}))
"""


@pytest.mark.slow
def test_two_processes_find_what_one_does(config: EvaluateConfig, tmp_path: Path) -> None:
    given = {name: getattr(config, name) for name in ("names", "photos", "base", "networks", "prompts", "n", "steps")}
    alone = values(evaluate(config))
    for text in printed(PROGRAM, json.dumps(given, default=str), folder=tmp_path):
        shared = json.loads(text)
        for label, scores in alone.items():
            assert {name: shared[label][name] for name in scores} == pytest.approx(scores, abs=2e-2)
    assert (tmp_path / "shared/report.html").is_file()


def test_scores_that_a_shared_disk_does_not_show_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second: Any = SimpleNamespace(process_index=1, num_processes=2, wait_for_everyone=lambda: None)
    monkeypatch.setattr(scoring, "processes", lambda: second)
    entrant: Any = SimpleNamespace(subject=Subject("rex", "dog", None, [], [], []))
    drawn: Any = SimpleNamespace(folder=tmp_path, pictures=[])
    evaluator: Any = SimpleNamespace(mark="", columns=[])
    with pytest.raises(PersonaError, match="Run the same command again"):
        scoring.measured([(entrant, drawn, drawn)], evaluator, silent)


@pytest.fixture
def able(base_folder: Callable[..., Path], tmp_path: Path) -> Path:
    """Return a tiny base that ships with a segmenter, an encoder, and weights for methods that look at photos."""
    folder = shutil.copytree(base_folder("sd-v-zero"), tmp_path / "base")
    torch.manual_seed(0)
    segmenter.Segmenter(["dog"], widths=(4, 8)).eval().save(folder / segmenter.FOLDER)
    encoder.Encoder(widths=(4, 8, 8), depth=1).eval().save(folder / encoder.FOLDER)
    base = families.load(str(folder), device="cpu")
    method: Any
    for store, method in ((jedi.STORE, JeDi), (telling.STORE, SubjectDiffusion)):
        model = method(base)
        for parameter in model.parameters.values():
            parameter.data += 0.2 * noise(*parameter.shape)
        (folder / store.name).mkdir()
        (folder / store.name / store.file).write_bytes(model.save())
        model.remove()
    return folder


@pytest.mark.parametrize(("method", "looks_at"), [("jedi", 3), ("subject-diffusion", 1)])
def test_methods_that_look_at_photos_join_without_learning(
    config: EvaluateConfig, able: Path, photos: list[Photo], method: str, looks_at: int
) -> None:
    found = evaluate(replace(config, names=(method, "base"), base=str(able), class_noun="dog", prompts="1"))
    rows = values(found)
    assert rows[method]["DINO"] != rows["base"]["DINO"]
    assert rows[method]["drift"] == rows["base"]["drift"] == pytest.approx(0, abs=1e-4)
    assert rows[method]["PRES"] == rows["base"]["PRES"]  # it leaves the class to the base
    assert next(row for row in found.rows if row.label == method).cells["learning, min"].mean == 0
    assert found.report.read_text().count("a dog, seed 0") == 1 * 2  # shown once: caption and text, nothing borrowed
    (about,) = config.out.glob(f"pictures/{method}-*/about.json")
    told = json.loads(about.read_text())
    assert told["references"] == [[photo.sha256, photo.caption] for photo in photos[:looks_at]]
    assert (told.get("class") == "dog") == (method == "jedi")  # what photos without captions are called


def test_weights_are_read_once_for_all_subjects(
    able: Path, photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = list[Any](), JeDi.load

    def loading(base: Any) -> JeDi:
        loaded.append(base)
        return load(base)

    monkeypatch.setattr(JeDi, "load", loading)
    studio = entrants.Studio(tmp_path, str(able), 0, silent)
    both = [methods.jedi(Subject(name, "dog", None, photos, [], []), studio)[0] for name in ("rex", "bob")]
    assert both[0].decides["jedi"] == both[1].decides["jedi"] != ""
    assert len(loaded) == 1


def test_what_is_cut_out_otherwise_is_drawn_anew(
    config: EvaluateConfig, able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(able / segmenter.FOLDER)
    asked = replace(config, names=("subject-diffusion",), base=str(able), class_noun="dog", prompts="1")
    events: list[Event] = []
    cats = shutil.copytree(config.photos[0], tmp_path / "cats")
    found = evaluate(replace(asked, photos=(*config.photos, cats)), events.append)
    (told,) = (note for note in listened(events)[0] if "Nothing is here that could cut it out" in note)  # once for both
    assert told in json.loads((config.out / "evaluation.json").read_text())["notes"]
    assert told in html.unescape(found.report.read_text())
    monkeypatch.setattr(segment, "_sought", lambda picture, *_: (np.eye(picture.height, picture.width) > 0, ""))
    evaluate(asked)
    assert len(list(config.out.glob("pictures/subject-diffusion-*"))) == 2


# The protocol


@pytest.fixture
def data_set(tmp_path: Path, photo_folder: Path) -> Path:
    folder = tmp_path / "dataset"
    for name in ("rex", "pot"):
        (folder / name).mkdir(parents=True)
        for photo in photo_folder.iterdir():
            (folder / name / photo.name).write_bytes(photo.read_bytes())
    (folder / INDEX).write_text(LIST)
    return folder


def test_the_data_set_is_read_as_its_authors_wrote_it(data_set: Path) -> None:
    events: list[Event] = []
    (data_set / "pot/broken.png").write_bytes(b"")
    rex, pot = read_dreambench(data_set, None, events.append)
    assert (rex.name, rex.class_noun, len(rex.photos)) == ("rex", "dog", 3)
    assert [p.text("dog") for p in rex.prompts[:2]] == ["a [V] dog on the beach", "a [V] dog wearing a red hat"]
    assert [p.text("teapot") for p in pot.prompts[:2]] == ["a [V] teapot in the snow", "a red [V] teapot"]
    assert {p.kind for p in rex.prompts} == {"subject", "class", "other"}
    gone, broken = listened(events)[0]
    assert "1 of 3 subjects are not in dataset" in gone  # the page shows no paths
    assert "Skipped broken.png" in broken
    assert [one.name for one in read_dreambench(data_set, "pot, pot", events.append)] == ["pot"]


@pytest.mark.skipif(not (DREAMBENCH / INDEX).is_file(), reason="needs the public data set")
def test_the_public_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_dreambench(
        DREAMBENCH, "dog,teapot" if (DREAMBENCH / "teapot").is_dir() else "dog,can", lambda event: None
    )
    for subject in found:
        own = [prompt.template for prompt in subject.prompts if prompt.kind == "subject"]
        assert own == [prompt.template for prompt in papers_prompts(subject.class_noun)]
        assert len(own) == 25
        assert len(subject.photos) >= 4


class _Enough(Exception):
    """A training would begin here."""


def enough(*_: object) -> None:
    raise _Enough


def test_the_protocol_teaches_and_draws_every_subject(
    data_set: Path, base_folder: Callable[..., Path], networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Which word it chooses is no matter here.
    monkeypatch.setattr(identity, "choose", lambda base, noun, *_: identity.check(base, "zwx", noun)[0])
    config = EvaluateConfig(
        names=("dreambooth", "base"), dreambench=str(data_set), base=str(base_folder()), networks=networks,
        out=tmp_path / "out", prompts="1", n=1, steps=1,
    )  # fmt: skip
    found = evaluate(config)
    labels = [row.label for row in found.rows]
    assert labels == ["photos of the same subject", "photos of another subject", "dreambooth", "base"]
    assert {shot.subject for shot in found.shots} == {"rex", "pot"}
    learning = next(row for row in found.rows if row.label == "dreambooth").cells["learning, min"]
    assert learning.mean > 0
    page = found.report.read_text()
    assert "no checkpoint was scored, so the last is measured" in page
    assert "2 subjects of DreamBench" in page
    assert ".04 to .08" in page  # the warning beside the published figures
    assert "Subject-Diffusion" in page
    events: list[Event] = []
    again = evaluate(config, events.append)
    assert values(again) == values(found)
    assert next(row for row in again.rows if row.label == "dreambooth").cells["learning, min"] == learning
    assert listened(events)[1] == []
    shutil.rmtree(config.out / "pictures")
    again = evaluate(replace(config, subjects="rex"))
    assert next(row for row in again.rows if row.label == "dreambooth").cells["learning, min"].mean > 0
    monkeypatch.setattr(methods, "train", enough)
    for anew in (replace(config, subjects="rex", seed=1), replace(config, subjects="rex")):
        events.clear()
        with pytest.raises(_Enough):
            evaluate(anew, events.append)
        assert "Learning rex." in listened(events)[0]  # another seed, or a caption more, is another training
        next((data_set / "rex").glob("*.png")).with_suffix(".txt").write_text("a [V] dog at home")


def test_networks_are_fetched_before_the_trainings_that_they_score(
    config: EvaluateConfig, judged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def folder_of(name: str, where: Path | None = None, *, fetch: bool = False) -> Path:
        asked.extend([name] if fetch else [])
        raise OSError("offline")

    monkeypatch.setattr(persona_networks, "folder_of", folder_of)
    monkeypatch.setattr(methods, "train", enough)
    config = replace(config, names=("dreambooth",), class_noun="dog")
    for changed, fetched in (
        ({"networks": None}, [DINO, CLIP, CLIPSEG]),
        ({"networks": None, "base": str(judged)}, []),  # which its own judge scores, or nothing
        ({}, []),
    ):
        asked.clear()
        with pytest.raises(_Enough):
            evaluate(replace(config, **changed))
        assert asked == fetched


def test_a_size_that_cannot_be_drawn_is_refused_before_trainings(
    config: EvaluateConfig, base_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "train", enough)
    names, base = ("dreambooth",), str(base_folder("sd3"))
    with pytest.raises(BadOption, match="Lower --resolution"):
        evaluate(replace(config, names=names, base=base, class_noun="dog", resolution=8192))


@pytest.mark.parametrize("method", ["jedi", "subject-diffusion"])
def test_nothing_is_trained_beside_a_method_without_weights(
    config: EvaluateConfig, data_set: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(families, "load", None)
    names = ("dreambooth", method)
    for changed in ({"class_noun": "dog"}, {"photos": (), "dreambench": str(data_set)}):
        place = re.escape(str(Path(str(config.base)) / method))
        with pytest.raises(BadBase, match=f"has no .* weights. Copy .* to {place}, .*persona pretrain {method}"):
            evaluate(replace(config, names=names, **changed))
    assert not list(config.out.rglob("personas"))


def test_clays_edition_asks_for_what_a_judge_can_tell(tmp_path: Path) -> None:
    known = read_words(weights_folder())
    for noun in world.CLASSES:
        prompts = clay.prompts(noun)
        about = [prompt for prompt in prompts if prompt.kind == "subject"]
        assert len(about) == 25
        assert len({prompt.template for prompt in about}) == 25
        for prompt in prompts:
            assert not unknown(prompt.bare(noun), known), prompt
            assert all(label in HEADS[head] for head, label in prompt.expected.items())
        assert sum(prompt.kind == "other" for prompt in prompts) == 4
    (dog,) = clay.subjects(tmp_path, "dog")
    assert len(dog.photos) == 5
    assert all(mask is not None and mask.shape == (128, 128) and mask.any() for mask in dog.masks)
    (again,) = clay.subjects(tmp_path, "dog")
    assert [photo.sha256 for photo in again.photos] == [photo.sha256 for photo in dog.photos]


def test_a_class_that_a_judge_does_not_know_is_not_asked_for() -> None:
    assert [one.expected for one in clay.prompts("Dog")] == [one.expected for one in clay.prompts("dog")]
    asked = [prompt for prompt in clay.prompts("toy car") if prompt.kind != "other"]
    assert asked
    assert not any("class" in prompt.expected for prompt in asked)
    assert any(prompt.expected for prompt in asked)  # where it is can be told all the same


@given(st.integers(1, 25))
def test_so_many_of_the_prompts_are_spread_over_their_kinds(number: int) -> None:
    names = [prompt.template for prompt in papers_prompts("dog")]
    kept = chosen(names, str(number), "--prompts")
    assert len(kept) == len(set(kept)) == number
    places = [names.index(name) for name in kept]
    assert places == sorted(places)
    assert max(after - before for before, after in pairwise([*places, 25])) <= -(-25 // number)


# What cannot be


def test_what_cannot_be_is_refused_before_anything_is_drawn(
    config: EvaluateConfig, data_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-v.txt").write_text("a dog\n")
    (tmp_path / "two.txt").write_text("a [V] dog\na [V] dog next to a [W] cat\n")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / INDEX).write_text("Classes\n")
    bench: dict[str, Any] = {"photos": (), "dreambench": str(data_set)}
    refused: list[tuple[dict[str, Any], type[PersonaError], str]] = [
        (
            {"names": ("nobody",)},
            BadOption,
            "nobody is no persona here, and no method. Methods are dreambooth, jedi, subject-diffusion, base",
        ),
        ({"photos": (tmp_path / "nowhere",)}, BadPhotos, "There is no folder"),
        ({"photos": (tmp_path / "empty",)}, BadPhotos, "There are no photos"),
        ({"base": "no/where/at/all"}, BadBase, "needs the base"),
        ({"prompts": "26"}, BadOption, "there are 25"),
        ({"prompts": str(tmp_path / "none.txt")}, BadPrompt, "cannot be read"),
        ({"prompts": str(tmp_path / "no-v.txt")}, BadPrompt, "is not about the subject"),
        ({"prompts": str(tmp_path / "two.txt")}, BadPrompt, "or not about it alone"),
        ({"names": ("base",), "class_noun": None}, BadOption, "--class"),
        ({"names": ("dreambooth",), "photos": (), "class_noun": "dog"}, BadOption, "--photos"),
        ({"names": (config.names[0], "jedi"), "photos": ()}, BadOption, "jedi draws from photos"),
        ({"names": (config.names[0], "subject-diffusion"), "photos": ()}, BadOption, "draws from a photo. Say where"),
        ({**bench, "names": ("rex",)}, BadOption, "rex is no method"),
        ({**bench, "names": (), "base": None}, BadOption, "--base"),
        ({**bench, "names": (), "dreambench": str(tmp_path / "empty")}, BadOption, f"it has no {INDEX}"),
        ({**bench, "names": (), "dreambench": str(tmp_path / "none")}, BadOption, "lists no classes"),
        ({**bench, "names": (), "subjects": "tom"}, BadOption, "There are: rex, pot."),
        ({**bench, "names": (), "subjects": "9"}, BadOption, "from 1 to 2"),
    ]
    for changed, error, said in refused:
        with pytest.raises(error, match=re.escape(said)) as caught:
            evaluate(replace(config, **changed))
        assert len(str(caught.value).splitlines()) <= 2
    assert not list(tmp_path.rglob("out/pictures"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "Name what to measure"),
        ({"names": ("a", "a")}, "given twice"),
        ({"names": ("a",), "subjects": "2"}, "--dreambench"),
        ({"dreambench": "clay", "photos": (Path("x"),)}, "--photos"),
        ({"names": ("a",), "n": 0}, "-n must be"),
        ({"names": ("jedi", "base"), "scales": True}, "--scales is about personas"),
        ({"dreambench": "clay", "names": ("base",), "checkpoints": True}, "--checkpoints is about personas"),
    ],
    ids=str,
)
def test_settings_that_contradict_each_other(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        EvaluateConfig(**given)


@pytest.mark.parametrize("names", [(), ("a",), ("a", "a"), ("a", "b", "c")], ids=len)
def test_a_comparison_is_of_two(names: tuple[str, ...]) -> None:
    with pytest.raises(BadOption, match="Name the two"):
        CompareConfig(names=names)


@pytest.mark.usefixtures("exact")
def test_a_full_disk_loses_nothing(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, batch=1)  # on some CPUs a picture's last digits depend on those that are drawn with it
    real, left = drawing.draw, [3]

    def full(artist: Any, jobs: Any, *given: Any, **how: Any) -> None:
        for job in jobs:
            if not left[0]:
                raise OSError(28, "No space left on device")
            left[0] -= 1
            real(artist, [job], *given, **how)

    monkeypatch.setattr(pictures, "draw", full)
    with pytest.raises(OSError, match="No space"):
        evaluate(config)
    assert len(list(config.out.rglob("*.png"))) == 3
    assert not list(config.out.rglob(".*"))
    monkeypatch.setattr(pictures, "draw", real)
    assert values(evaluate(config)) == values(evaluate(replace(config, out=config.out / "fresh")))
