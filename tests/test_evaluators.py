"""What pictures score: each column by hand, photos against themselves, bounds, and what cannot be measured."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import tiny_networks
import torch
from PIL import Image
from test_judge import small
from torch import Tensor
from torch.nn.functional import normalize

from persona import metrics
from persona.evaluate.judging import JudgeEvaluator
from persona.evaluate.networks import NetworkEvaluator
from persona.evaluate.pictures import Drawn
from persona.evaluate.subjects import BARE, OTHERS, Prompt, Subject
from persona.evaluate.tables import as_markdown, bounds, difference, of_fewer, rows_of, with_best
from persona.networks import Lpips, Networks
from persona.photos import Photo
from persona.report import Cell, Row, Shot

SNOW = Prompt("a [V] {class} in the snow", expected={"class": "dog", "context": "snow"})
BEACH = Prompt("a [V] {class} on the beach")


def picture(folder: Path, seed: int) -> Path:
    path = folder / f"{seed}.png"
    colours = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((64, 64), Image.Resampling.NEAREST).save(path)
    return path


def subject(folder: Path, *seeds: int, name: str = "rex") -> Subject:
    photos = [Photo(f"{seed}.png", Image.open(picture(folder, seed)).convert("RGB"), None, str(seed)) for seed in seeds]
    return Subject(name, "dog", folder, photos, [SNOW, BEACH, BARE, OTHERS[0]], [None] * len(photos))


def drawn(folder: Path, *asked: tuple[Prompt, int]) -> list[Drawn]:
    return [Drawn(prompt, place, picture(folder, seed)) for place, (prompt, seed) in enumerate(asked)]


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    folder = tmp_path_factory.mktemp("networks")
    return Networks.find(tiny_networks.save(folder, "dino-vits16", "clip-vit-base-patch32"))


@pytest.fixture(scope="module")
def judge() -> JudgeEvaluator:
    judge = small()
    torch.manual_seed(1)
    judge.others = {"dog": normalize(torch.randn(8, 128), dim=1)}
    return JudgeEvaluator(judge)


def embedded(networks: Networks, folder: Path, *seeds: int) -> Tensor:
    assert networks.dino
    return networks.dino.embed([Image.open(picture(folder, seed)) for seed in seeds])


def test_each_kind_of_prompt_is_measured_by_what_is_for_it(networks: Networks, tmp_path: Path) -> None:
    asked = ((SNOW, 1), (BARE, 2), (OTHERS[0], 3), (SNOW, 4))
    before = drawn(tmp_path, (BARE, 5), (BARE, 6), (OTHERS[0], 7))
    before[2] = Drawn(OTHERS[0], 2, before[2].path)  # of the same seed
    snow, bare, other, again = NetworkEvaluator(networks).score(
        subject(tmp_path, 8, 9), drawn(tmp_path, *asked), before
    )
    photos = embedded(networks, tmp_path, 8, 9)
    shown = embedded(networks, tmp_path, 1, 4)
    assert [snow["DINO"], again["DINO"]] == pytest.approx((shown @ photos.T).mean(1).tolist(), abs=1e-4)
    assert bare == {"PRES": pytest.approx((embedded(networks, tmp_path, 2) @ photos.T).mean().item(), abs=1e-4)}
    moved = (embedded(networks, tmp_path, 3) * embedded(networks, tmp_path, 7)).sum().item()
    assert other == {"drift": pytest.approx((1 - moved) / 2, abs=1e-4)}
    recovered = metrics.recovered(shown, photos, embedded(networks, tmp_path, 5, 6), 0.774)
    assert [snow["identity"], again["identity"]] == pytest.approx(recovered.tolist(), abs=1e-3)
    assert networks.clip
    text = networks.clip.texts(["a dog in the snow"])[0]
    seen = networks.clip.embed([Image.open(picture(tmp_path, 1))])[0]
    assert snow["CLIP-T"] == pytest.approx((text @ seen).item(), abs=1e-4)


def test_identical_pictures_score_one(networks: Networks, tmp_path: Path) -> None:
    (copy,) = NetworkEvaluator(networks).score(subject(tmp_path, 1), drawn(tmp_path, (SNOW, 1)), [])
    for name in ("DINO", "CLIP-I", "memorisation", "copies"):
        assert copy[name] == pytest.approx(1, abs=1e-4), name


def test_photos_bound_what_can_be_reached(networks: Networks, tmp_path: Path) -> None:
    """Photos of each subject are alike, and unlike the other's: noise of one seed, a little of another mixed in."""

    def alike(seed: int, name: str) -> Subject:
        own = subject(tmp_path, seed, seed + 1, seed + 2, name=name)
        first = own.photos[0].image
        mixed = [Photo(p.name, Image.blend(first, p.image, 0.2), None, p.sha256) for p in own.photos]
        return Subject(name, "dog", tmp_path, mixed, own.prompts, own.masks)

    same, other = bounds([alike(10, "rex"), alike(20, "bob")], NetworkEvaluator(networks))
    assert (same.label, other.label) == ("photos of the same subject", "photos of another subject")
    assert other.cells["DINO"].mean < same.cells["DINO"].mean < 1
    assert other.cells["CLIP-I"].mean < same.cells["CLIP-I"].mean < 1
    assert [row.label for row in bounds([alike(10, "rex")], NetworkEvaluator(networks))] == [same.label]


def test_the_batch_changes_nothing(networks: Networks, tmp_path: Path) -> None:
    evaluator, who = NetworkEvaluator(networks), subject(tmp_path, 8, 9)
    pictures = drawn(tmp_path, *((BEACH, seed) for seed in range(40)))
    together = evaluator.score(who, pictures, [])
    alone = [evaluator.score(who, [one], [])[0] for one in pictures[-2:]]
    for one, many in zip(alone, together[-2:], strict=True):
        assert one == pytest.approx({name: many[name] for name in one}, abs=2e-5)


def test_without_networks_copies_are_still_found(tmp_path: Path) -> None:
    evaluator = NetworkEvaluator(Networks(missing=("DINO is not here.",)))
    assert [column.name for column in evaluator.columns] == ["memorisation", "background", "copies"]
    (copy,) = evaluator.score(subject(tmp_path, 1), drawn(tmp_path, (SNOW, 1)), [])
    assert copy == {"memorisation": pytest.approx(1, abs=1e-4), "copies": 1}
    assert math.isnan(evaluator.total({"memorisation": 1.0}))


@pytest.mark.parametrize("kind", ["networks", "judge"])
def test_without_photos_prompts_are_still_measured(
    kind: str, networks: Networks, judge: JudgeEvaluator, tmp_path: Path
) -> None:
    evaluator = NetworkEvaluator(networks) if kind == "networks" else judge
    asked = drawn(tmp_path, (SNOW, 1), (BARE, 2), (OTHERS[0], 3))
    scores = evaluator.score(subject(tmp_path), asked, asked)
    assert evaluator.prompt in scores[0]
    assert not {"DINO", "identity", "memorisation", "PRES", "leak"} & {name for one in scores for name in one}
    assert scores[2] == {"drift": pytest.approx(0, abs=1e-4)}


class Far(Lpips):
    """Distances that can be reckoned with: LPIPS itself is not here."""

    def __init__(self) -> None:
        """Need nothing."""

    def distances(self, pictures: Sequence[Image.Image]) -> Tensor:
        colours = torch.tensor([float(np.asarray(one).mean()) for one in pictures]) / 255
        return (colours[:, None] - colours[None]).abs()


def test_diversity_is_that_of_the_pictures_of_a_prompt(tmp_path: Path) -> None:
    paths = [tmp_path / f"grey-{value}.png" for value in (0, 51, 102, 255)]
    for path, value in zip(paths, (0, 51, 102, 255), strict=True):
        Image.new("RGB", (32, 32), (value,) * 3).save(path)
    pictures = [Drawn(SNOW, seed, path) for seed, path in enumerate(paths[:3])] + [Drawn(BEACH, 0, paths[3])]
    scores = NetworkEvaluator(Networks(lpips=Far())).score(subject(tmp_path, 1), pictures, [])
    assert [one.get("DIV") for one in scores] == [pytest.approx(0.3), pytest.approx(0.2), pytest.approx(0.3), None]


def test_masks_leave_out_the_background(networks: Networks, tmp_path: Path) -> None:
    class Left:
        def masks(self, pictures: Sequence[Image.Image], noun: str) -> list[metrics.Mask]:
            assert noun == "dog"
            mask = np.zeros((64, 64), bool)
            mask[:, :32] = True
            return [mask] * len(pictures)

    one, two = (np.asarray(Image.open(picture(tmp_path, seed))) for seed in (1, 2))
    mixed = tmp_path / "mixed.png"
    Image.fromarray(np.concatenate([one[:, :32], two[:, 32:]], 1)).save(mixed)
    found = Networks(networks.dino, networks.clip, Left())  # type: ignore[arg-type]
    (scores,) = NetworkEvaluator(found).score(subject(tmp_path, 1), [Drawn(SNOW, 0, mixed)], [])
    assert scores["MDINO"] == pytest.approx(1, abs=1e-4)
    assert scores["MCLIP-I"] == pytest.approx(1, abs=1e-4)
    assert scores["DINO"] < 0.999
    assert scores["background"] < 0.5


def test_the_judge_reads_what_was_asked_for(judge: JudgeEvaluator, tmp_path: Path) -> None:
    who = subject(tmp_path, 8, 9)
    pictures = drawn(tmp_path, (SNOW, 1), (SNOW, 2), (BEACH, 3), (BARE, 4))
    (before,) = drawn(tmp_path, (BARE, 5))
    scores = judge.score(who, pictures, [replace(before, seed=pictures[3].seed)])
    labels, shown = judge._judge.read([Image.open(picture(tmp_path, seed)) for seed in (1, 2, 3, 4, 5)])
    for place in (0, 1):
        assert scores[place]["prompt"] == mean([labels["class"][place] == "dog", labels["context"][place] == "snow"])
    assert "prompt" not in scores[2]  # nothing that a judge can tell
    _, photos = judge._judge.read([photo.image for photo in who.photos])
    identity = judge._judge.recovered(shown, photos, "dog").tolist()
    assert [one["identity"] for one in scores[:3]] == pytest.approx(identity[:3], abs=1e-4)
    assert scores[3]["leak"] == pytest.approx(max(identity[3], 0) - max(identity[4], 0), abs=1e-4)
    assert set(scores[3]) == {"leak", "PRES (judge)"}


# Tables


def shot(label: str, prompt: str, value: float, *, who: str = "rex", seed: int = 0) -> Shot:
    return Shot(Path("x.png"), label, who, prompt, seed, {"identity": value})


def test_each_subject_counts_the_same() -> None:
    shots = [shot("a", "1", 0.2), shot("a", "1", 0.4, seed=1), shot("a", "2", 0.9), shot("a", "1", 0.0, who="bob")]
    (row,) = rows_of(shots, [_entrant("a")], JudgeEvaluator.columns)
    assert row.cells["identity"].mean == pytest.approx((mean([0.3, 0.9]) + 0.0) / 2)
    assert row.cells["identity"].low <= 0.3 <= row.cells["identity"].high
    assert set(row.cells) == {"identity"}


def test_where_one_prompt_is_all_there_is_its_seeds_vary() -> None:
    shots = [shot("a", "1", value, seed=seed) for seed, value in enumerate((0.0, 1.0, 0.5, 0.5))]
    (row,) = rows_of(shots, [_entrant("a")], JudgeEvaluator.columns)
    cell = row.cells["identity"]
    assert cell.mean == 0.5
    assert cell.low < 0.4 < 0.6 < cell.high


def test_the_difference_is_taken_prompt_by_prompt() -> None:
    ones = [shot("a", str(k), 0.1 * k + 0.05) for k in range(9)]
    others = [shot("b", str(k), 0.1 * k) for k in range(9)]
    row = difference([*ones, *others, shot("a", "of a alone", 9.0)], "a", "b", JudgeEvaluator.columns)
    cell = row.cells["identity"]
    assert (cell.mean, cell.low, cell.high) == pytest.approx((0.05, 0.05, 0.05))  # how hard a prompt is says nothing
    assert not difference(ones, "a", "b", JudgeEvaluator.columns).cells


def test_the_difference_is_of_the_same_prompts_where_each_has_others() -> None:
    ones = [shot("a", "1", value, seed=seed) for seed, value in enumerate((0.5, 0.7))]
    assert not difference([*ones, shot("b", "2", 0.1)], "a", "b", JudgeEvaluator.columns).cells
    others = [shot("b", "1", 0.1, seed=1), shot("b", "2", 0.9)]
    row = difference([*ones, *others], "a", "b", JudgeEvaluator.columns)
    assert row.cells["identity"].mean == pytest.approx(0.6)


def test_the_best_is_the_best_trade_off(judge: JudgeEvaluator) -> None:
    def row(label: str, identity: float, prompt: float, leak: float = 0.0, copies: float = 0.0) -> Row:
        values = {"identity": identity, "prompt": prompt, "leak": leak, "copies": copies}
        return Row(label, {name: Cell(value, value, value) for name, value in values.items()}, label)

    lacking = [row("copy", 1, 0.2), row("leaks", 0.9, 0.9, 0.5), row("album", 1, 1, copies=0.5), Row("none")]
    rows = with_best([*lacking, row("both", 0.7, 0.8)], judge)
    assert [one.label for one in rows if one.best] == ["both"]
    assert not any(one.best for one in with_best([row("alone", 1, 1)], judge))
    shots = [shot("both", "1", 1), shot("both", "1", 1, who="bob"), shot("easy", "1", 1)]
    apart = with_best([row("easy", 1, 1), row("both", 0.7, 0.8), row("worse", 0.6, 0.8)], judge, of_fewer(shots))
    assert [one.label for one in apart if one.best] == ["both"]
    assert of_fewer([shot("a", "1", 1), shot("b", "1", 1, who="bob")]) == ["a", "b"]  # as many, but others


def test_markdown_is_a_table_whatever_the_names() -> None:
    rows = [Row("a|b\nc", {"identity": Cell(0.5, 0.4, 0.6)}, best=True), Row("d", {})]
    lines = as_markdown(rows, JudgeEvaluator.columns).splitlines()
    assert lines == ["| | identity |", "|---|---|", "| a\\|b c **(best)** | 0.500 (0.400 to 0.600) |", "| d |  |"]


def _entrant(label: str) -> Any:
    class Entrant:
        line = label

    Entrant.label = label  # type: ignore[attr-defined]
    return Entrant
