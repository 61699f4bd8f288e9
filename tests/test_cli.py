"""The command line: what it shows, on which stream, and how it ends. The library behind it is a stand-in here."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import typer
from commands import run
from pictures import grain
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import save

from persona import __version__
from persona.cli import app
from persona.cli.following import typed
from persona.cli.options import EXPERTS
from persona.config import InterpolateConfig, PlanConfig, PriorsConfig, SampleConfig, TrainConfig
from persona.errors import BadPhotos
from persona.events import Event, Listener, Note, Progress
from persona.folder import Persona, versions
from persona.plan import Plan
from persona.score import Scores
from persona.train import watch

# Each dial that is added here is one more that somebody has to understand.
OPTIONS = {
    "plan": (
        "--base --vram --all --photos --steps --prior --priors --rank --batch --resolution --text-encoder --json "
        "--help",
        "--adapter --optimizer --precision --quantize --gradient-checkpointing --offload --tiling --accumulate",
    ),
    "gen-priors": (
        "--class --base -n --prompt --steps --guidance --resolution --seed --store --json --help",
        "--batch",
    ),
    "gen-sets": (
        "--base --out -n --prompts --seed --steps --guidance --resolution --json --help",
        "--similarity --quality --networks",
    ),
    "gen-sdd": ("--out --resolution --batch --json --help", "--captioner --tagger --detector --segmenter"),
    "train": (
        "--class --token --base --out --steps --prior --priors --rank --batch --resolution --text-encoder --seed "
        "--fresh --json --help",
        "--prior-weight --learning-rate --text-learning-rate --alpha --adapter --target --optimizer --precision "
        "--quantize --gradient-checkpointing --offload --tiling --accumulate --snr-gamma --crops --flip "
        "--checkpoint-every --score-every --from-jedi",
    ),
    "sample": (
        "--persona --reference --class --subject --together --base -n --seed --steps --guidance --scale --negative "
        "--out --json --help",
        "--prompts --resolution --checkpoint --batch --image-guidance --balanced --jedi --mask --subject-diffusion",
    ),
    "interpolate": (
        "--persona --subject --base --seed --frames --fps --linear --out --steps --guidance --scale --negative --json "
        "--help",
        "--resolution --batch --image-guidance --mask --subject-diffusion",
    ),
    "pretrain clay": (
        "--out --pictures --sets --autoencoder-steps --judge-steps --segmenter-steps --encoder-steps --text-steps "
        "--denoiser-steps --seed --photos --json --help",
        "",
    ),
    "pretrain jedi": (
        "--base --data --out --steps --batch --seed --json --help",
        "--accumulate --learning-rate --target --start-from --precision --save-every --renoised",
    ),
    "pretrain subject-diffusion": (
        "--base --data --out --steps --batch --seed --json --help",
        "--accumulate --learning-rate --target --start-from --precision --save-every --encoder --attention-control",
    ),
    "export": ("--to --merge --base --out --json --help", "--checkpoint"),
    "import": ("--base --class --token --out --json --help", ""),
    "compare": (
        "--photos --class --base --out --prompts -n --seed --steps --guidance --json --help",
        "--resolution --batch --networks",
    ),
    "evaluate": (
        "--photos --class --base --out --prompts -n --seed --steps --guidance --checkpoints --scales --dreambench "
        "--subjects --json --help",
        "--resolution --batch --networks",
    ),
    "info": ("--json --help", ""),
}
TRAIN = ["train", "photos", "--class", "dog"]
MADE = SimpleNamespace(
    path=Path("personas/dog-sks"),
    token="sks",
    class_noun="dog",
    base="clay",
    recommended_scale=1.0,
    scores={"identity": 0.82, "prompt": 0.9},
)
PICTURE = SimpleNamespace(path=Path("0.png"), prompt="a [V] dog", seed=5, facts={})


def process(program: str, **environment: str) -> str:
    """Run a program of its own, and return what it wrote to stdout."""
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Any]], None]:
    """Return a function that puts another in the place of one of the library's, where there are folders of photos."""
    monkeypatch.chdir(tmp_path)
    for name in ("photos", "my photos"):
        Path(name).mkdir()

    def replace(name: str, function: Callable[..., Any]) -> None:
        module = {"gen_priors": "priors"}.get(name, name)
        monkeypatch.setitem(sys.modules, f"persona.{module}", SimpleNamespace(**{name: function}))

    return replace


@pytest.fixture
def training(stand_in: Callable[..., None]) -> Callable[..., list[TrainConfig]]:
    """Return a function that lets ``train`` tell events, or raise, and gives the settings that it was called with."""

    def prepare(*events: Event | BaseException) -> list[TrainConfig]:
        calls: list[TrainConfig] = []

        def train(config: TrainConfig, listener: Listener) -> Any:
            calls.append(config)
            for event in events:
                if isinstance(event, BaseException):
                    raise event
                listener(event)
                time.sleep(0.01)  # there is no speed without time
            return MADE

        stand_in("train", train)
        return calls

    return prepare


# What it offers


def test_options_are_frozen() -> None:
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group, says nothing of it
    methods = {f"pretrain {name}" for name in known["pretrain"].commands}
    assert set(OPTIONS) == known.keys() - {"pretrain"} | methods
    for name, (first, experts) in OPTIONS.items():
        panels: dict[str, list[str]] = {}
        for line in run(*name.split(), "--help").stdout.splitlines():
            if re.match(r"\S.*:$", line):
                panel = panels.setdefault(line[:-1], [])
            elif option := re.match(r"  (--?\S+)", line):
                panel.append(option[1].replace("[no-]", ""))
        assert (panels["Options"], panels.get(EXPERTS, [])) == (first.split(), experts.split()), name
        order = ["Arguments", "Options", EXPERTS]
        assert list(panels) == [title for title in order if title in panels], name
        assert (EXPERTS in panels) == bool(experts), name


def test_the_first_panel_is_short() -> None:
    assert all(len(first.split()) <= 15 for first, _ in OPTIONS.values())


def test_options_become_settings(training: Callable[..., list[TrainConfig]]) -> None:
    calls = training()
    result = run(
        *TRAIN, "--rank", "4", "--no-flip", "--target", "to_q", "--target", "to_k", "--text-encoder", "--fresh"
    )
    assert result.exit_code == 0, result.output
    assert calls == [
        TrainConfig(
            photos=Path("photos"),
            class_noun="dog",
            rank=4,
            flip=False,
            targets=("to_q", "to_k"),
            text_encoder=True,
            fresh=True,
        )
    ]


@pytest.mark.parametrize(
    "arguments", [["--help"], *([*name.split(), "--help"] for name in (*OPTIONS, "pretrain")), []], ids=" ".join
)
def test_a_narrow_terminal_loses_nothing(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 60 or not arguments
    assert "…" not in result.output
    assert "..." not in re.sub(r"PROMPTS\.\.\.|NAMES\.\.\.|\[ARGS\]\.\.\.", "", result.stdout)


def test_help_is_instant() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    helped = (
        "import sys; sys.argv[1:] = ['--help']; from persona.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    )
    loaded = process(helped).splitlines()[-1].split()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not {"torch", "numpy", "PIL", "rich"} & set(loaded)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_version() -> None:
    assert run("--version").stdout == f"persona {__version__}\n"


def test_completion() -> None:
    shell = {"_PERSONA_COMPLETE": "complete_bash", "COMP_WORDS": "persona tr", "COMP_CWORD": "1"}
    assert process("from persona.cli import main; main()", **shell).split() == ["train"]


def test_persona_alone_says_what_to_type_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run()
    assert "persona train PHOTOS --class dog" in result.stderr
    assert result.stdout == ""
    (tmp_path / "personas/dog-sks").mkdir(parents=True)
    (tmp_path / "personas/dog-sks/persona.json").write_text("{}")
    assert "persona info personas/dog-sks" in run().stderr
    (tmp_path / "personas/my dog").mkdir()
    (tmp_path / "personas/my dog/persona.json").write_text("{}")
    assert "persona info 'personas/my dog'" in run().stderr
    (tmp_path / "personas/a:dog:").mkdir()
    (tmp_path / "personas/a:dog:/persona.json").write_text("{}")
    assert "newest first: personas/a:dog:," in run().stderr
    Path("adapter").write_bytes(save({}))
    car = Persona(path=Path("personas/car"), token="zwx", class_noun="toy car", base="clay", base_hash="ab" * 32)
    car.write(Path("adapter"))
    monkeypatch.setattr("persona.folder.safe_open", None)  # it loads torch
    assert "persona sample 'a [V] toy car on the beach'" in run().stderr


def test_this_machine_is_told_as_personas_tell_it() -> None:
    told = json.loads(run("info", "--json").stdout)
    assert (told["libraries"]["torch"], told["python"]) == (versions()["torch"], versions()["python"])
    assert "python" not in told["libraries"]


def test_any_machine_is_told_in_plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.cpu_count", lambda logical=True: 4 if logical else None)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=1008 * 2**30, available=2**29))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    said = " ".join(run("info").stderr.split())
    assert "CPU with 4 cores" in said
    assert "memory_gib 1008 memory_free_gib 0.5 " in said


# What it says


def test_people_read_stderr_and_machines_stdout(training: Callable[..., object]) -> None:
    training(Note("The background is [the same] everywhere.", warning=True), Progress("Training", 400, 400, 0.125))
    result = run(*TRAIN, "--json")
    made = json.loads(result.stdout)
    assert (made["command"], made["persona"], made["token"]) == ("train", "personas/dog-sks", "sks")
    assert made["scores"] == {"identity": 0.82, "prompt": 0.9}
    assert "The background is [the same] everywhere." in made["notes"]
    assert "! The background is [the same] everywhere." in result.stderr
    assert "Training: 400/400  loss 0.125" in result.stderr
    assert "persona sample 'a [V] dog on the beach'" in result.stderr
    assert run(*TRAIN).stdout == ""


def test_the_next_command_finds_what_was_made(training: Callable[..., object], tmp_path: Path) -> None:
    training()
    said = run(*TRAIN, "--base", str(tmp_path), COLUMNS="300").stderr
    assert f"'a [V] dog on the beach' --persona personas/dog-sks --base {tmp_path}" in said


def test_the_next_command_names_what_is_not_the_newest(training: Callable[..., object]) -> None:
    training()
    for name in ("dog-sks", "cat-zwx"):
        Path("personas", name).mkdir(parents=True)
        Path("personas", name, "persona.json").write_text("{}")
    os.utime("personas/dog-sks/persona.json", (1, 1))
    assert "'a [V] dog on the beach' --persona personas/dog-sks" in run(*TRAIN, COLUMNS="300").stderr
    os.utime("personas/cat-zwx/persona.json", (0, 0))
    assert "--persona" not in run(*TRAIN, COLUMNS="300").stderr


def test_clay_is_named_once(training: Callable[..., object]) -> None:
    training()
    assert run(*TRAIN).stderr.count("Base: clay") == 1
    assert "Base: clay" not in run(*TRAIN, "--base", "sd15").stderr


def test_only_the_first_process_speaks(training: Callable[..., object]) -> None:
    training(Note("hello"))
    result = run(*TRAIN, "--json", RANK="1")
    assert (result.exit_code, result.output) == (0, "")
    training(KeyboardInterrupt())
    assert run(*TRAIN, RANK="1").output == ""


def test_what_fails_on_another_process_is_said(training: Callable[..., object]) -> None:
    training(BadPhotos("No photos."))
    result = run(*TRAIN, "--json", RANK="1")
    assert (result.exit_code, result.stderr, result.stdout) == (2, "[process 1] Error: No photos.\n", "")
    known = BadPhotos("No photos.")
    known.told = True  # by the first process, from which this one has it
    training(known)
    assert run(*TRAIN, RANK="1").stderr == ""


def test_a_pipe_and_no_color_are_respected(training: Callable[..., object]) -> None:
    training(Note("careful", warning=True), Progress("Training", 1, 2), Progress("Training", 2, 2))
    assert "\x1b" not in run(*TRAIN).output
    assert "\x1b[1;36m" in run(*TRAIN, FORCE_COLOR="1", TERM="xterm").output
    coloured = run(*TRAIN, FORCE_COLOR="1", TERM="xterm", NO_COLOR="1").output
    assert not re.search(r"\x1b\[[\d;]*3\dm", coloured)


def test_bars_fit_a_narrow_terminal(training: Callable[..., object]) -> None:
    training(*(Progress("Drawing dog[old], all of it", done, 9999, 0.5) for done in (9997, 9998, 9999)))
    drawn = run(*TRAIN, FORCE_COLOR="1", TERM="xterm", NO_COLOR="1").stderr
    lines = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", drawn.replace("\r", "\n")).splitlines()
    bars = [line for line in lines if "9999/9999" in line]
    assert bars
    assert all(len(line) <= 60 and "dog[old]" in line and "GiB" in line for line in bars), bars


def test_stages_may_take_turns(training: Callable[..., object]) -> None:
    training(*(Progress(stage, done, 2) for done in (1, 2) for stage in ("Training", "Scoring")))
    result = run(*TRAIN)
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stderr.splitlines() if "2/2" in line] == ["Training", "Scoring"]


def test_gen_priors_and_sample(stand_in: Callable[..., None], tmp_path: Path) -> None:
    def gen_priors(config: PriorsConfig, listener: Listener) -> list[Path]:
        return [tmp_path / f"{number}.png" for number in range(config.n)]

    def sample(config: SampleConfig, listener: Listener) -> list[Any]:
        return [
            SimpleNamespace(path=config.out / f"{seed}.png", prompt=prompt, seed=seed, facts={"persona": "dog-sks"})
            for prompt in config.prompts
            for seed in range(config.n)
        ]

    stand_in("gen_priors", gen_priors)
    stand_in("sample", sample)
    priors = run("gen-priors", "--class", "toy car", "-n", "3", "--json")
    assert len(json.loads(priors.stdout)["pictures"]) == 3
    assert "persona train PHOTOS --class 'toy car' --prior generated --priors 3\n" in priors.stderr
    drawn = run("sample", "a [V] dog", "a cat", "-n", "2", "--json")
    assert [(p["prompt"], p["seed"]) for p in json.loads(drawn.stdout)["pictures"]] == [
        ("a [V] dog", 0),
        ("a [V] dog", 1),
        ("a cat", 0),
        ("a cat", 1),
    ]
    assert json.loads(drawn.stdout)["drawn_with"] == {"persona": "dog-sks"}
    assert "persona interpolate 'a [V] dog' --seed 0 --seed 1" in drawn.stderr


@pytest.mark.parametrize("how", ["--store=x", "--prompt=a red car", "--steps=9", "--guidance=1", "--seed=2"])
def test_class_pictures_that_a_training_would_not_find_are_named(stand_in: Callable[..., None], how: str) -> None:
    stand_in("gen_priors", lambda config, listener: [Path("my store/0.png"), Path("my store/1.png")])
    said = run("gen-priors", "--class", "car", how, COLUMNS="300").stderr
    assert "persona train PHOTOS --class car --prior 'folder:my store' --priors 100\n" in said


def test_class_pictures_are_trained_on_at_the_size_that_they_have(stand_in: Callable[..., None]) -> None:
    stand_in("gen_priors", lambda config, listener: [Path("dogs/0.png")])
    said = run("gen-priors", "--class", "dog", "--resolution", "64", COLUMNS="300").stderr
    assert "persona train PHOTOS --class dog --prior generated --priors 100 --resolution 64\n" in said
    said = run("gen-priors", "--class", "dog", "--resolution", "64", "--seed", "2", COLUMNS="300").stderr
    assert "persona train PHOTOS --class dog --prior folder:dogs --priors 100 --resolution 64\n" in said


def test_class_pictures_of_several_prompts_are_in_folders_of_their_own(stand_in: Callable[..., None]) -> None:
    stand_in("gen_priors", lambda config, listener: [Path("a/0.png"), Path("b/0.png")])
    said = run("gen-priors", "--class", "car", "--prompt", "a red car", "--prompt", "a car", COLUMNS="300").stderr
    assert "A training takes one folder: --prior folder:DIR" in said
    assert "Next:" not in said


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("train", "fotos", "--class", "dog"), "There is no folder fotos."),
        (("sample", "a [V] dog", "--persona", "rex"), "There is no persona rex."),
        (("sample", "a [V] dog", "--reference", "fotos", "--class", "dog"), "There is no folder fotos."),
        (("interpolate", "a [V] dog", "--persona", "rex"), "There is no persona rex."),
    ],
)
def test_a_name_mistyped_is_told_before_anything_is_loaded(
    arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')")
    command = [sys.executable, "-m", "persona", *arguments]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parent.parent}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, told in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (("--reference", "my photos", "--class", "dog", "--base", "sd15"), "persona train 'my photos' --class dog"),
        (("--together",), None),
        (("--checkpoint", "100"), None),
    ],
)
def test_what_no_series_draws_is_followed_by_none(
    stand_in: Callable[..., None], how: tuple[str, ...], told: str | None
) -> None:
    stand_in("sample", lambda config, listener: [PICTURE])
    said = run("sample", "a [V] dog", *how, COLUMNS="300").stderr
    assert "persona interpolate" not in said
    assert told is None or told in said


def test_interpolate(stand_in: Callable[..., None], tmp_path: Path) -> None:
    def interpolate(config: InterpolateConfig, listener: Listener) -> Any:
        return SimpleNamespace(
            what="the base to dog-sks",
            folder=config.out,
            paths=(config.out / "frame-0000.png", config.out / "frame-0001.png"),
            places=(0.0, 1.0),
            distances=(0.3,),
            strip=config.out / "strip.png",
            animations=(config.out / "series.webp",),
            facts={"base": "my dogs"},
        )

    stand_in("interpolate", interpolate)
    asked = ("a [V] dog", "--base", "my dogs", "--seed", "3", "--frames", "3", "--negative", "blurry", "--linear")
    result = run("interpolate", *asked, "--out", str(tmp_path), "--json", COLUMNS="300")
    made = json.loads(result.stdout)
    assert (made["between"], len(made["frames"]), made["distances"]) == ("the base to dog-sks", 2, [0.3])
    assert made["drawn_with"] == {"base": "my dogs"}
    assert "2 frames, from the base to dog-sks." in result.stderr
    again = "persona interpolate 'a [V] dog' --base 'my dogs' --seed 3 --frames 5 --linear"
    assert f"Next: {again} --out {tmp_path} --negative blurry\n" in result.stderr


def test_what_to_type_next_draws_as_was_asked(stand_in: Callable[..., None]) -> None:
    stand_in("sample", lambda config, listener: [PICTURE])
    asked = ("--steps", "9", "--guidance", "3", "--negative", "blurry", "--resolution", "512", "--seed", "5")
    said = run("sample", "a [V] dog", *asked, "--scale", "0.8", COLUMNS="300").stderr
    how = "--steps 9 --guidance 3.0 --scale 0.8 --negative blurry --resolution 512"
    assert f"Next: persona interpolate 'a [V] dog' --seed 5 --seed 6 {how}\n" in said
    both = ("--subject", "V=dog.png", "--subject", "W=cat.png", "--image-guidance", "2", "--batch", "1")
    said = run("sample", "a [V] dog", *asked, *both, COLUMNS="300").stderr
    how = "--steps 9 --guidance 3.0 --negative blurry --resolution 512 --image-guidance 2.0"
    assert f"Next: persona interpolate 'a [V] dog' --subject V=dog.png {how} --seed 5\n" in said


def test_what_to_type_next_trains_as_was_planned(stand_in: Callable[..., None]) -> None:
    def plan(config: PlanConfig, listener: Listener) -> list[Plan]:
        settings: Any = SimpleNamespace(steps=9)
        return [Plan(config.base, "cpu", settings, "", 1, "training", None, 1, 0, 1, 1, 1, 2.0)]

    stand_in("plan", plan)
    how = "--rank 8 --batch 2 --resolution 64 --no-text-encoder --precision fp32 --offload"
    said = run("plan", "--base", "sd15", "--photos", "3", *how.split(), COLUMNS="1000").stderr
    assert f"Next: persona train PHOTOS --class CLASS --base sd15 {how}\n" in said
    assert "; previews come on top." in said
    said = run("plan", "--base", "sd15", "--prior", "generated", COLUMNS="1000").stderr
    assert "Next: persona train PHOTOS --class CLASS --base sd15 --prior generated\n" in said
    assert "; class images and previews come on top." in said


def test_commands_are_quoted_as_this_machine_reads_them(
    training: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    training()
    monkeypatch.setattr("persona.config.words.os", SimpleNamespace(name="nt"))
    assert 'Next: persona sample "a [V] dog on the beach"' in run(*TRAIN, COLUMNS="300").stderr


def test_what_looks_like_an_option_is_typed_as_none() -> None:
    assert typed("sample", ["-x [V] dog"], {"-n": 1}) == "persona sample -n 1 -- '-x [V] dog'"


def test_paths_and_commands_can_be_copied(training: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    training()
    folder = Path("personas", "a dog " * 40)
    monkeypatch.setattr(MADE, "path", folder)
    lines = run(*TRAIN).stderr.splitlines()
    assert str(folder) in lines
    assert f"Next: persona sample 'a [V] dog on the beach' --persona '{folder}'" in lines


# How it ends


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BadPhotos("No photos in [x]. Put some there."), 2, "Error: No photos in [x]. Put some there.\n"),
        (full_disk(), 2, "Error: The disk is full. Free some space and run the same command again to resume.\n"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), 2, "Error: The disk is full."),
        (
            SafetensorError("I/O error: Es ist kein Platz mehr da. (os error 112)"),
            2,
            "disk is full.",
        ),
        (OSError("1000000 requested and 524256 written"), 2, "disk is full."),
        (OSError("Not enough free space to write 40000000 bytes after offset 128"), 2, "disk is full."),
        (SafetensorError("I/O error: Input/output error (os error 5)"), 1, "SafetensorError: I/O error"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "Error: /x: permission denied."),
        (FileExistsError(errno.EEXIST, "File exists", "/x"), 2, "Error: /x: file exists."),
        (MemoryError(), 2, "Error: Out of memory. Try a smaller --batch, or a smaller --resolution."),
        (KeyboardInterrupt(), 130, "stopped; run the same command again to resume\n"),
        (ZeroDivisionError("oops"), 1, "ZeroDivisionError: oops"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_exit_codes(training: Callable[..., object], error: BaseException, code: int, said: str) -> None:
    training(Progress("Training", 1, 400, 0.1), error)
    result = run(*TRAIN)
    assert result.exit_code == code
    assert said in result.stderr
    assert result.stdout == ""


def test_less_memory_is_taken_by_options_that_there_are(stand_in: Callable[..., None]) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    stand_in("export", fail)
    assert run("export", "rex").stderr.endswith(
        "Error: Out of memory. Close other programs and run the same command again to start over.\n"
    )


FULL = """
import sys, types
from pathlib import Path
sys.modules["persona.priors"] = types.SimpleNamespace(gen_priors=lambda *_: [Path("dogs/0.png")])
sys.argv = ["persona", "gen-priors", "--class", "dog", "--json"]
from persona.cli import main
main()
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is none here")
def test_a_full_disk_takes_no_json(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: The disk is full.")
    assert "Traceback" not in done.stderr


def test_what_starts_over_is_not_said_to_resume(stand_in: Callable[..., None]) -> None:
    def sample(config: SampleConfig, listener: Listener) -> list[Any]:
        raise KeyboardInterrupt

    stand_in("sample", sample)
    result = run("sample", "a [V] dog")
    assert (result.exit_code, result.stderr) == (130, "stopped; run the same command again to start over\n")


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train"], ["train", "photos"], [*TRAIN, "--rank", "many"], [*TRAIN, "--rank", "0"], ["sample"]],
    ids=" ".join,
)
def test_misuse_ends_with_2_and_no_traceback(arguments: list[str]) -> None:
    result = run(*arguments, "--json")
    assert result.exit_code == 2
    assert "Error" in result.stderr
    assert "Traceback" not in result.output
    assert json.loads(result.stdout)["error"]["message"]


@pytest.mark.parametrize(
    ("base", "said"),
    [("nobody/knows-this", "nobody/knows-this"), ("photos", "model_index.json"), ("photos/0.png", "0.png")],
)
def test_a_base_that_is_none_ends_with_2(
    base: str, said: str, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.copytree(photo_folder, "photos")
    result = run("train", "photos", "--class", "dog", "--base", base, "--json")
    assert (result.exit_code, result.stderr.count("Traceback")) == (2, 0)
    assert said in result.stderr
    assert json.loads(result.stdout)["error"]["kind"] == "BadBase"
    assert [path.name for path in Path().iterdir()] == ["photos"]


@pytest.mark.parametrize("what", ["personas", "personas/dog", "rex"])
def test_a_persona_that_is_none_is_no_base(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "personas/rex").mkdir(parents=True)
    result = run("info", what)
    assert result.exit_code == 2
    assert "persona" in result.stderr
    assert "base" not in result.stderr


def test_a_missing_persona_is_told_where_there_is_none_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("info", "personas/rex")
    assert (result.exit_code, result.stderr.startswith("Error: There is no persona personas/rex.")) == (2, True)


def test_a_base_is_described_before_it_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    by_id, result = (run("info", name, "--json") for name in ("black-forest-labs/FLUX.1-dev", "flux-dev"))
    told = json.loads(result.stdout)
    assert json.loads(by_id.stdout) == told | {"base": "black-forest-labs/FLUX.1-dev"}
    assert (told["hub"], told["download_gb"], told["gated"]) == ("black-forest-labs/FLUX.1-dev", 33.7, True)
    assert told["licence"] in result.stderr
    assert not told["here"]
    assert (told["resolution"], told["recipe"]["rank"], told["recipe"]["steps_per_photo"]) == (1024, 16, 100)


def test_a_base_that_is_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = run("info", "foo/bar")
    assert result.exit_code == 2
    assert "foo/bar" in result.stderr


def test_what_the_base_decides_is_said_below_the_options() -> None:
    for name in ("train", "plan"):
        said = " ".join(run(name, "--help").stdout.split())
        assert said.endswith("Options without a default take what suits the base: `persona info BASE` lists it.")


def test_the_built_in_base_shows_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clay").mkdir()  # is none of the user's personas
    said = run("info", "clay").stderr
    assert "pencil sketch" in said
    assert "What it is bad at" in said


def test_facts_are_shown_as_words(base_folder: Callable[[], Path]) -> None:
    said = " ".join(run("info", str(base_folder())).stderr.split())
    assert "targets to_q, to_k, to_v, to_out.0 " in said
    assert "None" not in said


def test_refusals_are_json_too(training: Callable[..., object]) -> None:
    training(BadPhotos("No photos."))
    assert json.loads(run(*TRAIN, "--json").stdout) == {"error": {"kind": "BadPhotos", "message": "No photos."}}


# All of it


class Judge:
    """Scores that need no network: the later pictures are the better ones."""

    wanted: ClassVar = {"a [V] {class} on the beach": (0, 1), "a {class}": (0, 1, 2)}
    total = 0.0

    def score(self, drawn: dict[str, list[Image.Image]], photos: list[Image.Image]) -> Scores:
        assert {template: len(images) for template, images in drawn.items()} == {
            template: len(seeds) for template, seeds in self.wanted.items()
        }
        self.total += 0.25
        return Scores(identity=0.5, prompt=0.5, drift=0.1, memorisation=0.2, total=self.total)


def test_from_photos_to_pictures(
    base_folder: Callable[[], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "scorer_for", lambda *_: Judge())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        grain((48, 40), 60 + 40 * number).save(tmp_path / f"photos/{number}.png")
    base = ["--base", str(base_folder())]

    def made(*arguments: str) -> dict[str, Any]:
        result = run(*arguments, *base, "--json")
        assert result.exit_code == 0, result.output
        value: dict[str, Any] = json.loads(result.stdout)
        return value

    dog = made("train", "photos", "--class", "dog", "--token", "zwx", "--steps", "4", "--score-every", "2")
    assert (dog["persona"], dog["token"], dog["class"]) == ("personas/dog-zwx", "zwx", "dog")
    assert dog["scores"]["total"] == 0.5
    assert "a zwx dog on the beach" in Path(dog["report"]).read_text(encoding="utf-8")
    persona = ["--persona", dog["persona"]]
    drawn = made("sample", "a [V] dog in the snow", "-n", "2", *persona)
    assert all(Path(picture["path"]).exists() for picture in drawn["pictures"])
    series = made("interpolate", "a [V] dog", "--frames", "2", "--linear", *persona)
    assert all(Path(frame).exists() for frame in series["frames"])
    file = made("export", dog["persona"], "--to", "kohya")
    assert (Path(file["path"]).name, file["trigger"]) == ("dog-zwx-kohya.safetensors", "zwx dog")
    again = made("import", file["path"], "--out", "personas/again")
    assert (again["persona"], again["token"], again["class"]) == ("personas/again", "zwx", "dog")
    told = json.loads(run("info", dog["persona"], "--json").stdout)
    assert (told["token"], told["scores"]) == ("zwx", dog["scores"])
    assert json.loads(run("info", str(base_folder()), "--json").stdout)["pipeline"] == "StableDiffusionPipeline"


PROGRAM = """
import signal, sys, time, types
from persona.atomic import scratch
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background was told to ignore it
def train(config, listener):
    with scratch(config.photos / "persona") as part:
        part.mkdir()
        print("ready", flush=True)
        time.sleep(60)
sys.modules["persona.train"] = types.SimpleNamespace(train=train)
sys.argv = ["persona", "train", sys.argv[1], "--class", "dog"]
from persona.cli import main
main()
"""


@pytest.mark.parametrize(
    ("told", "code", "last"),
    [(signal.SIGINT, 130, "stopped; run the same command again to resume\n"), (signal.SIGTERM, 143, "")],
)
def test_what_is_stopped_leaves_nothing_behind(
    photo_folder: Path, tmp_path: Path, told: signal.Signals, code: int, last: str
) -> None:
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    command = [sys.executable, "-c", PROGRAM, str(photos)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert list(photos.glob(".*"))
        running.send_signal(told)
        _, said = running.communicate(timeout=30)
    assert running.returncode == code
    assert said.endswith(last)
    assert "Traceback" not in said
    assert not list(photos.glob(".*"))
