import gc
from pathlib import Path

import pytest
from PIL import Image

from persona import film
from persona.events import Event, Note


def test_an_mp4_needs_a_program_that_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_spec", lambda name: None)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    events: list[Event] = []
    assert [path.suffix for path in film.write(frames, tmp_path, 8.0, events.append)] == [".webp", ".gif"]
    (note,) = events
    assert isinstance(note, Note)
    assert "imageio-ffmpeg" in note.text


def test_the_mp4_plays(tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [Image.new("RGB", (40, 24), (0, 0, 20 * number)) for number in range(10)]
    path = film.write(frames, tmp_path, 5.0)[2]
    assert ffmpeg.count_frames_and_secs(str(path)) == (10, pytest.approx(2, abs=0.1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio leaves its pipe open
@pytest.mark.parametrize("program", ["/nonexistent", "/bin/false"])
def test_a_program_that_fails_costs_the_mp4_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    events: list[Event] = []
    made = film.write(frames, tmp_path, 8.0, events.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["series.gif", "series.webp"]
    assert {path.name for path in made} == {"series.gif", "series.webp"}
    gc.collect()  # here, where it is known
    (note,) = events
    assert isinstance(note, Note)
    assert (note.warning, "ffmpeg fails" in note.text) == (True, True)
