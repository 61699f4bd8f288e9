"""The persona: a folder with all that drawing the subject needs, which can be moved to any machine.

``persona.json`` says how it was made, ``adapter.safetensors`` is what was learnt. The record is written last, so a
folder without one is an unfinished run; it carries its own hash and those of the weights, so that what was damaged on
the way is refused instead of drawing other pictures. Nothing in it tells where the user's files are.
"""

import json
import platform
import re
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

from safetensors import SafetensorError, safe_open

from persona.atomic import beside, digest, digest_of
from persona.errors import BadPersona

ADAPTER = "adapter.safetensors"
"""The weights that are drawn with."""
RECORD = "persona.json"
"""What they are, and how they were made."""
HOME = Path("personas")
"""Where personas are put when the user names no folder."""
FORMAT = 1
"""Raised when an older program would misread the record."""

_LIBRARIES = ("persona", "torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)$")  # Windows opens devices under these names


@dataclass(frozen=True, kw_only=True)
class Persona:
    """A subject that a base model has learnt.

    Attributes:
        path: the folder.
        token: the word that stands for the subject in prompts.
        class_noun: what the subject is.
        base: name of the base it was made for, as ``--base`` takes it; of a local folder its last part.
        base_hash: sha256 (hex) over that base's configs and weights.
        method: how it was learnt.
        step: training step of the weights.
        recommended_scale: strength to draw with.
        scores: name to value, of these weights.
        history: scores of each checkpoint, with its ``step``.
        settings: options of the training, with what the base recommended filled in.
        photos: sha256 (hex) of each photo.
        versions: library to version.
        files: weights' path within the folder to their sha256 (hex).
    """

    path: Path
    token: str
    class_noun: str
    base: str
    base_hash: str
    method: str = "dreambooth"
    step: int = 0
    recommended_scale: float = 1.0
    scores: Mapping[str, float] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    photos: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    def write(self, adapter: Path) -> Self:
        """Make the folder a finished persona, and return it as it was written.

        Args:
            adapter: the weights that were chosen; they are copied. The weights of other checkpoints are those
                in ``checkpoints/*/adapter.safetensors`` of the folder.

        Raises:
            OSError: the disk is full, or the folder may not be written to.
        """
        with beside(self.path / ADAPTER) as part:
            shutil.copyfile(adapter, part)
            (self.path / RECORD).unlink(missing_ok=True)  # from here on the folder is unfinished, not inconsistent
        weights = [self.path / ADAPTER, *sorted(self.path.glob(f"checkpoints/*/{ADAPTER}"))]
        record = portable(asdict(self))
        del record["path"]
        record["versions"] = versions()
        record["files"] = {path.relative_to(self.path).as_posix(): digest(path) for path in weights}
        with beside(self.path / RECORD) as part:
            text = json.dumps({"format": FORMAT, **record, "sha256": digest_of(record)}, indent=2)
            part.write_text(text + "\n", encoding="utf-8")
        return self.open(self.path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a persona, and check that it is whole.

        Args:
            path: its folder, or that folder's name under ``personas``.

        Raises:
            BadPersona: it is missing, unfinished, damaged, changed by hand, or made by a later version.
        """
        made = cls.recorded(path)
        made.weights()
        return made

    @classmethod
    def recorded(cls, path: Path) -> Self:
        """Read what is said of a persona as :meth:`open` does, without its weights, which take torch to check."""
        path = folder_of(path) or path
        return cls(path=path, **_checked(path, _read(path)))

    @classmethod
    def newest(cls, where: Path = HOME) -> Self:
        """Open the persona that was finished last.

        Raises:
            BadPersona: there is none, or it is damaged.
        """
        made = personas(where)
        if not made:
            raise BadPersona(
                f"There is no persona in {where} yet. Make one: persona train PHOTOS --class dog, or name it: --persona"
            )
        return cls.open(made[0])

    def weights(self, step: int | None = None) -> Path:
        """Return the file of the weights, once it is known to be what was written.

        Args:
            step: that of a checkpoint; ``None`` for the chosen one.

        Raises:
            BadPersona: it is missing or damaged, or a pickle lies in its place, which is never loaded.
        """
        name = ADAPTER if step is None else self._checkpoint(step)
        _check_weights(self.path / name)
        if digest(self.path / name) != self.files.get(name):
            raise BadPersona(f"{self.path / name} was changed since it was written. Copy or train the persona again.")
        return self.path / name

    @property
    def checkpoints(self) -> dict[int, str]:
        """The files of the checkpoints' weights that are still there, by their steps in order."""
        found = ((step_of(PurePosixPath(name).parent.name), name) for name in self.files)
        return dict(sorted((step, name) for step, name in found if step is not None and (self.path / name).exists()))

    def _checkpoint(self, step: int) -> str:
        steps = self.checkpoints
        if step not in steps:
            there = ", ".join(map(str, steps)) or "none"
            raise BadPersona(f"{self.path} has no checkpoint of step {step}. There are: {there}.")
        return steps[step]


def personas(where: Path = HOME) -> list[Path]:
    """Return the folders of the personas in a folder, those first that were finished last."""
    records = sorted(where.glob(f"*/{RECORD}"), key=lambda record: record.stat().st_mtime, reverse=True)
    return [record.parent for record in records]


def folder_of(name: str | Path) -> Path | None:
    """Return the folder of a persona by that folder, or by its name under ``personas``, if it is there.

    Where there are both, such as photos of the same name, it is the one that holds a persona.
    """
    there = [folder for folder in (Path(name), HOME / name) if folder.is_dir()]
    return next((folder for folder in there if (folder / RECORD).is_file()), next(iter(there), None))


def folder_for(class_noun: str, token: str) -> Path:
    """Return where a persona is put when the user names no folder."""
    return HOME / slug(f"{class_noun}-{token}")


def step_name(step: int) -> str:
    """Return what the folders of a step are called, in ``checkpoints`` and in ``previews``."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """Return the step whose folders are called so, or ``None`` if it is the name of something else."""
    match = re.fullmatch(r"step-(\d+)", name)
    return int(match[1]) if match else None


def slug(text: str) -> str:
    """Turn any text into a name that every file system takes: letters and digits of any script, and hyphens."""
    name = unicodedata.normalize("NFKC", text).casefold()
    name = re.sub(r"[\W_]+", "-", name)[:48]
    name = name.encode(errors="ignore")[:120].decode(errors="ignore").strip("-")
    return f"a-{name}" if _RESERVED.match(name) else name or "unnamed"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise BadPersona(f"There is no persona {path}. Make one: persona train PHOTOS --class dog")
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadPersona(
            f"{path} is no finished persona: it has no {RECORD}. If interrupted, train with the same command to resume."
        ) from None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise BadPersona(f"{path / RECORD} is damaged. Copy or train the persona again.")
    return record


def _checked(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that is whole, of this format, and of the right types."""
    made, signed = record.pop("format", None), record.pop("sha256", None)
    if isinstance(made, int) and made > FORMAT:
        raise BadPersona(
            f"{path} was made by a later version. Update persona in its checkout: git pull && pip install ."
        )
    kinds = {kept.name: _json_kind(kept.type) for kept in fields(Persona) if kept.name != "path"}
    whole = record.keys() == kinds.keys() and all(isinstance(record[name], kinds[name]) for name in kinds)
    if not whole or signed != digest_of(record):
        raise BadPersona(f"{path / RECORD} is damaged or was changed by hand. Copy or train the persona again.")
    return record | {"photos": tuple(record["photos"]), "history": tuple(record["history"])}


def _json_kind(annotation: object) -> type | tuple[type, ...]:
    """Return what a field is in JSON."""
    if annotation in (str, int):
        return str if annotation is str else int
    return (int, float) if annotation is float else list if "tuple" in str(annotation) else dict


def _check_weights(path: Path) -> None:
    """Raise BadPersona unless the file can only be tensors: nothing in it is ever run."""
    if not path.is_file():
        pickles = [other.name for other in path.parent.glob(f"{path.stem}.*") if other.suffix != ".html"]
        also = f"; {pickles[0]} is another format, and is not loaded" if pickles else ""
        raise BadPersona(f"{path} is missing{also}. Copy or train the persona again.")
    with path.open("rb") as file:
        start = file.read(9)
    # A bare pickle, unless it is the length of a safetensors file's header, which begins like one now and then; or
    # torch.save's archive.
    if (start[:1] == b"\x80" and start[8:] != b"{") or start[:4] == b"PK\x03\x04":
        raise BadPersona(f"{path} is a pickle, which can run code: it is never loaded. Train the persona again.")
    try:
        with safe_open(path, "pt"):
            pass
    except (SafetensorError, OSError):
        raise BadPersona(f"{path} is damaged or cut off. Copy or train the persona again.") from None


def portable(value: Any) -> Any:
    """Keep of every path its last part: where it lay on this machine is nobody's business."""
    if isinstance(value, Path):
        return value.name
    if isinstance(value, str):
        return _last_part(value) if _is_path(value) else value
    if isinstance(value, Mapping):
        return {str(key): portable(item) for key, item in value.items()}
    return [portable(item) for item in value] if isinstance(value, list | tuple) else value


def _is_path(text: str) -> bool:
    """Tell a path from a name; that of a model on a hub has one slash and is none, unless it is a folder here."""
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or text.startswith(("~", "./", "../", ".\\")):
        return True
    return "/" in text and Path(text).exists()


def _last_part(text: str) -> str:
    return PureWindowsPath(text).name or PureWindowsPath(Path(text).absolute()).name


def versions() -> dict[str, str]:
    """Return the version of Python, of persona and of what it is built on, by name, where they are installed."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:  # run from its sources, or not needed on this machine
            continue
    return found
