"""A series of frames as an animation that people can send around."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from persona.events import Listener, Note, silent


def write(frames: Sequence[Image.Image], folder: Path, fps: float, listener: Listener = silent) -> list[Path]:
    """Write an animated WebP and GIF, and an MP4 where imageio-ffmpeg is there to do it.

    Args:
        frames: at least two RGB pictures of one size, its sides even numbers of pixels.
        folder: gets ``series.webp``, ``series.gif`` and ``series.mp4``.
        fps: frames a second; a GIF counts in hundredths of a second, and players show at most 50 frames in one.
        listener: told if there is no MP4, which nothing else hangs on, and how to get one.

    Returns:
        The files that were written.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    first, *others = frames
    how: dict[str, Any] = {"save_all": True, "append_images": others, "loop": 0}
    made = [folder / "series.webp", folder / "series.gif"]
    first.save(made[0], quality=90, duration=max(1, round(1000 / fps)), **how)
    first.save(made[1], duration=max(20, round(100 / fps) * 10), **how)
    if find_spec("imageio_ffmpeg") is None:
        listener(Note("There is no MP4. To get one too: pip install imageio-ffmpeg"))
        return made
    film = folder / "series.mp4"
    try:
        _write_mp4(frames, film, fps)
    except Exception as error:  # a program of others has failed, in any way that it likes
        film.unlink(missing_ok=True)
        hint = "Reinstall imageio-ffmpeg, or correct IMAGEIO_FFMPEG_EXE."
        listener(Note(f"There is no MP4, as ffmpeg fails ({type(error).__name__}). {hint}", warning=True))
        return made
    return [*made, film]


def _write_mp4(frames: Sequence[Image.Image], path: Path, fps: float) -> None:
    ffmpeg = import_module("imageio_ffmpeg")
    writer = ffmpeg.write_frames(str(path), frames[0].size, fps=fps, quality=8, macro_block_size=2)
    writer.send(None)  # as its authors ask for: the program starts here
    try:
        for frame in frames:
            writer.send(frame.tobytes())
    finally:
        writer.close()
    path.stat()  # a program that wrote nothing at all ends like one that did
