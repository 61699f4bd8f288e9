import errno
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from persona.errors import BadPersona
from persona.folder import ADAPTER, RECORD, Persona, folder_for, slug


def weights(path: Path, seed: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"unet.a": torch.full((2, 3), seed)}, path)
    return path


def made(folder: Path, **changed: Any) -> Persona:
    weights(folder / "checkpoints/step-000100" / ADAPTER, 1.0)
    best = weights(folder / "checkpoints/step-000200" / ADAPTER, 2.0)
    fields: dict[str, Any] = {
        "token": "zwx",
        "class_noun": "dog",
        "base": "clay",
        "base_hash": "ab" * 32,
        "step": 200,
        "recommended_scale": 0.9,
        "scores": {"identity": 0.83},
        "history": ({"step": 100, "identity": 0.5}, {"step": 200, "identity": 0.83}),
        "settings": {"rank": 8, "targets": ("to_q", "to_k"), "learning_rate": 1e-4, "alpha": None},
        "photos": ("12" * 32,),
    }
    return Persona(path=folder, **fields | changed).write(best)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = made(tmp_path / "dog")
    read = Persona.open(tmp_path / "dog")
    assert read == written
    assert (read.token, read.class_noun, read.base, read.step) == ("zwx", "dog", "clay", 200)
    assert read.scores == {"identity": 0.83}
    assert read.history[1]["step"] == 200
    assert read.settings == {"rank": 8, "targets": ["to_q", "to_k"], "learning_rate": 1e-4, "alpha": None}
    assert read.photos == ("12" * 32,)
    assert read.versions["torch"] == version("torch")
    assert read.weights() == tmp_path / "dog" / ADAPTER
    assert read.weights().read_bytes() == read.weights(200).read_bytes() != read.weights(100).read_bytes()


def test_it_can_be_moved(tmp_path: Path) -> None:
    made(tmp_path / "dog")
    (tmp_path / "dog").rename(tmp_path / "elsewhere")
    assert Persona.open(tmp_path / "elsewhere").weights().parent == tmp_path / "elsewhere"


def test_writing_again_replaces_it(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path, token="qvy")
    assert Persona.open(tmp_path).token == "qvy"
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_written_again_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        made(tmp_path, step=100)
    assert Persona.open(tmp_path) == one


@pytest.mark.parametrize(
    "base",
    ["/home/me/models/tiny", "~/models/tiny", "./tiny", "../models/tiny", r"C:\Users\me\tiny", r"\\host\me\tiny"],
)
def test_no_path_of_this_machine_is_told(tmp_path: Path, base: str) -> None:
    settings = {"prior": "folder:pictures", "photos": tmp_path / "photos", "list": [str(tmp_path), base]}
    persona = made(tmp_path / "dog", base=base, settings=settings)
    assert persona.base == "tiny"
    assert persona.settings["photos"] == "photos"
    record = (tmp_path / "dog" / RECORD).read_text()
    assert all(part not in record for part in (str(tmp_path), "home", "Users", "models", "host"))


def test_a_hub_id_is_no_path_but_a_folder_here_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(tmp_path / "a", base="maker/model").base == "maker/model"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maker/model").mkdir(parents=True)
    assert made(tmp_path / "a", base="maker/model").base == "model"


def test_the_newest_is_found(tmp_path: Path) -> None:
    with pytest.raises(BadPersona, match="persona train"):
        Persona.newest(tmp_path / "personas")
    for number, name in enumerate(("one", "two", "unfinished")):
        made(tmp_path / "personas" / name, token=name)
        os.utime(tmp_path / "personas" / name / RECORD, (number, number))
    (tmp_path / "personas/unfinished" / RECORD).unlink()
    assert Persona.newest(tmp_path / "personas").token == "two"


def change(path: Path, **fields: object) -> None:
    record = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps(record | fields))


def swap_adapter(path: Path) -> None:
    weights(path / ADAPTER, 7.0)


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path / name, length)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: (path / RECORD).unlink(), "no finished persona"),
        (lambda path: (path / RECORD).write_text("[" * 100_000), "damaged"),
        (lambda path: (path / RECORD).write_bytes(b"\xff\xfe"), "damaged"),
        (lambda path: (path / RECORD).write_text("[]"), "damaged"),
        (lambda path: change(path, token="cat"), "changed by hand"),
        (lambda path: change(path, recommended_scale="high"), "changed by hand"),
        (lambda path: change(path, files={ADAPTER: "0" * 64}), "changed by hand"),
        (lambda path: change(path, format=99), "git pull && pip install ."),
        (cut(RECORD, 100), "damaged"),
        (cut(ADAPTER, 20), "damaged or cut off"),
        (cut(ADAPTER, 0), "damaged or cut off"),
        (swap_adapter, "was changed"),
        (lambda path: (path / ADAPTER).unlink(), "missing"),
        (lambda path: (path / ADAPTER).rename(path / "adapter.bin"), "adapter.bin is another format"),
    ],
)
def test_a_damaged_persona_is_refused(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    made(tmp_path)
    harm(tmp_path)
    with pytest.raises(BadPersona, match=message) as raised:
        Persona.open(tmp_path)
    assert len(str(raised.value).splitlines()) <= 2


class Trap:
    """A pickle that would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("save", [torch.save, lambda trap, path: path.write_bytes(pickle.dumps(trap))])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    made(tmp_path)
    save(Trap(tmp_path / "trace"), tmp_path / ADAPTER)
    with pytest.raises(BadPersona, match="is a pickle"):
        Persona.open(tmp_path)
    assert not (tmp_path / "trace").exists()


def test_weights_that_begin_like_a_pickle_are_none(tmp_path: Path) -> None:
    for length in range(0, 256, 8):  # the file begins with the length of what describes it
        path = tmp_path / str(length) / ADAPTER
        path.parent.mkdir()
        save_file({"unet.a": torch.zeros(2, 3)}, path, {"filling": "x" * length})
        begins_alike = path.read_bytes()[:1] == b"\x80"
        if begins_alike:
            break
    assert begins_alike
    Persona(path=tmp_path, token="zwx", class_noun="dog", base="clay", base_hash="ab" * 32).write(path)


def test_one_under_personas_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = made(Path("personas", "rex"))
    assert Persona.open(Path("rex")) == written
    Path("rex").mkdir()  # of its photos, say
    assert Persona.open(Path("rex")) == written
    (written.path / RECORD).unlink()
    with pytest.raises(BadPersona, match="rex is no finished persona"):
        Persona.open(Path("rex"))


def test_a_persona_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadPersona, match="There is no persona"):
        Persona.open(tmp_path / "absent")


def test_checkpoints_are_checked_too(tmp_path: Path) -> None:
    persona = made(tmp_path)
    with pytest.raises(BadPersona, match=r"no checkpoint of step 7\. There are: 100, 200"):
        persona.weights(7)
    weights(tmp_path / "checkpoints/step-000100" / ADAPTER, 9.0)
    with pytest.raises(BadPersona, match="was changed"):
        persona.weights(100)


def test_checkpoints_that_were_removed_are_not_there(tmp_path: Path) -> None:
    persona = made(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/step-000100")
    assert list(persona.checkpoints) == [200]
    with pytest.raises(BadPersona, match=r"no checkpoint of step 100\. There are: 200\."):
        persona.weights(100)


def test_only_the_folders_of_steps_are_checkpoints(tmp_path: Path) -> None:
    weights(tmp_path / "checkpoints/mine-300" / ADAPTER)
    assert list(made(tmp_path).checkpoints.values()) == [
        "checkpoints/step-000100/adapter.safetensors", "checkpoints/step-000200/adapter.safetensors"
    ]  # fmt: skip


@given(class_noun=st.text(), token=st.text())
def test_any_words_make_a_folder_inside_personas(class_noun: str, token: str) -> None:
    folder = folder_for(class_noun, token)
    assert folder.parent == Path("personas")
    assert folder.name not in (".", "..")
    assert len(os.fsencode(folder.name)) <= 150
    assert not set(folder.name) & set('/\\:*?"<>|\0 ')
    assert not folder.name.startswith((".", "-"))


@given(text=st.text())
def test_names_are_plain_and_settled(text: str) -> None:
    assert slug(slug(text)) == slug(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("CON", "a-con"),
        ("", "unnamed"),
        ("Ein Höfl/Hund", "ein-höfl-hund"),
        ("犬", "犬"),
    ],
)
def test_names_by_example(text: str, name: str) -> None:
    assert slug(text) == name


def test_a_persona_is_a_value(tmp_path: Path) -> None:
    persona = made(tmp_path)
    assert replace(persona, token="other") != persona
