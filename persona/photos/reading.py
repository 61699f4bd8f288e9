"""From a plain folder to upright RGB pictures, whatever a phone, a camera or a browser has put there."""

import io
import os
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from pillow_heif import register_heif_opener

from persona.atomic import digest
from persona.config.words import read_text
from persona.errors import BadPhotos
from persona.events import Listener, Note, silent
from persona.photos.advice import advise, some

register_heif_opener()

SHORT_SIDE = 1536
"""Pixels of a photo's shorter side that are kept: more than bases draw best, less than 200 photos in memory need."""

# Named one by one: Pillow also opens formats that start other programs, and raw camera files as their thumbnails.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".heif"}
CAPTIONS = (".txt", ".TXT")
"""What the files of captions end in."""
_KINDS = "JPEG, PNG, WebP, HEIC or AVIF"
_NEEDED = "three to six photos of the subject"

# What decoders raise on damaged bytes, as far as damaging them at random has shown.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    ArithmeticError,
    RuntimeError,
    TypeError,
    AttributeError,
    KeyError,
    struct.error,
    zlib.error,
)

# What turns a picture upright, by EXIF's orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Photo:
    """One photo of the subject.

    Attributes:
        name: file name, without the folder.
        image: RGB, upright, at most :data:`SHORT_SIDE` pixels on its shorter side, or what more was asked for.
        caption: the text beside it (``name.txt``) in one line, where there is one.
        sha256: of the file's bytes, in hex.
        mask: grey, of the image's size, white where the subject is: the alpha of a photo that was cut out.
    """

    name: str
    image: Image.Image
    caption: str | None
    sha256: str
    mask: Image.Image | None = None


def read(folder: Path, listener: Listener = silent, side: int = SHORT_SIDE) -> list[Photo]:
    """Read every photo of a folder to learn from, and say what could be better about them.

    Args:
        folder: as :func:`pictures` takes it.
        listener: told what was skipped, and what to do about duplicates, blur and the like.
        side: as for :func:`pictures`.

    Raises:
        BadPhotos: as :func:`pictures`.
    """
    found = pictures(folder, listener, side=side)
    for note in advise(found):
        listener(note)
    return found


def pictures(
    folder: Path, listener: Listener = silent, *, of: str = _NEEDED, most: int | None = None, side: int = SHORT_SIDE
) -> list[Photo]:
    """Read every photo of a folder, or the first so many, in the order of their names.

    What is no photo is skipped with a note, a photo that cannot be decoded with a warning; nothing goes in silence.

    Args:
        folder: a plain folder; a text file of the same name as a photo is its caption.
        listener: told what was skipped.
        of: what the folder should hold, for the words of an error.
        most: photos after which no more are read; all are when left out.
        side: pixels of their shorter side that are kept.

    Raises:
        BadPhotos: the folder cannot be read, holds no photo, or holds a decompression bomb.
    """
    photos: dict[Path, Photo] = {}
    strays: list[Path] = []
    broken: list[Path] = []
    for path in files(folder, of):
        if len(photos) == most:
            break
        try:
            photos[path] = _photo(path, side)
        except Image.DecompressionBombError:
            raise _giant(path) from None
        except UnidentifiedImageError:  # one of the next ones too, so it comes first
            (broken if path.suffix.lower() in SUFFIXES else strays).append(path)
        except DAMAGE:
            broken.append(path)
    captioned = {path.stem for path in (*photos, *broken)}
    strays = [path for path in strays if path.suffix not in CAPTIONS or path.stem not in captioned]
    _tell_skipped(strays, broken, listener)
    if not photos:
        raise BadPhotos(_none_in(folder, broken, of))
    return list(photos.values())


def picture(path: Path) -> Photo:
    """Read one photo.

    Raises:
        BadPhotos: it is not there, is none or damaged, or is a decompression bomb.
    """
    if not path.is_file():
        raise BadPhotos(f"There is no image {path}. Name one that shows the subject.")
    try:
        return _photo(path)
    except Image.DecompressionBombError:
        raise _giant(path) from None
    except DAMAGE:
        raise BadPhotos(f"{path} cannot be read as an image. Save it again as {_KINDS}.") from None


def _giant(path: Path) -> BadPhotos:
    return BadPhotos(f"{path} would decompress to a giant image. Save it smaller, or take it out.")


def files(folder: Path, of: str = _NEEDED) -> list[Path]:
    """List what is in a folder, without what file managers hide there.

    Args:
        folder: to look into.
        of: what it should hold, for the words of an error.

    Raises:
        BadPhotos: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        raise BadPhotos(f"There is no folder {folder}. Put {of} in one.") from None
    except NotADirectoryError:
        raise BadPhotos(f"{folder} is a file. Name the folder that holds the photos.") from None
    except OSError as error:
        raise BadPhotos(f"The folder {folder} cannot be read: {error.strerror}. Fix its permissions.") from None


def _photo(path: Path, side: int = SHORT_SIDE) -> Photo:
    """Decode one file.

    Raises:
        UnidentifiedImageError: it is in none of the formats.
        DecompressionBombError: it claims more pixels than Pillow's limit, 179 million.
        OSError, ...: one of :data:`DAMAGE`, on damaged bytes.
    """
    if not path.is_file():
        raise UnidentifiedImageError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged metadata of a sound picture, and sizes that are merely large
        with Image.open(path, formats=FORMATS) as image:
            # A JPEG can be decoded at a fraction of its size; other formats take no notice.
            image.draft("RGB", (2 * side, 2 * side))
            turned = upright(image)
            shown, mask = _shrunk(rgb(turned), side), _mask(turned, side)
    name = os.fsencode(path.name).decode("utf-8", "replace")  # names that are no text would break what is written
    return Photo(name, shown, _caption(path), digest(path), mask)


def upright(image: Image.Image) -> Image.Image:
    """Turn a picture upright; ``ImageOps.exif_transpose`` would also write its EXIF anew, and fail over odd tags."""
    image.load()
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to 8-bit sRGB; what is transparent becomes white."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow's own conversion would cut them off at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    image = image.convert("RGB")
    return _in_srgb(image, profile) if profile else image


def _mask(image: Image.Image, side: int) -> Image.Image | None:
    """Return how opaque an 8-bit picture is, where not all of it is."""
    if image.mode.startswith("I") or not image.has_transparency_data:
        return None
    alpha = image.convert("RGBA").getchannel("A")
    return None if alpha.getextrema() == (255, 255) else _shrunk(alpha, side)


def _in_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert the wide colours of a phone's photo; without this its subject would be learnt too pale."""
    try:
        converted = ImageCms.profileToProfile(image, io.BytesIO(profile), ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):  # a profile of another colour space, or a broken one
        return image
    return converted or image


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)


def _caption(path: Path) -> str | None:
    texts = [path.with_suffix(suffix) for suffix in CAPTIONS]
    text = next((text for text in texts if text.is_file()), None)
    if text is None:
        return None
    try:
        return " ".join(read_text(text).split()) or None
    except ValueError as error:
        raise BadPhotos(f"The caption {text} cannot be read: {error}.") from None


def _tell_skipped(strays: list[Path], broken: list[Path], listener: Listener) -> None:
    if strays:
        listener(Note(f"Skipped files that are no photos: {_names(strays)}."))
    if broken:
        hint = "damaged or unreadable. Save it again or take it out."
        listener(Note(f"Skipped {_names(broken)}: {hint}", warning=True))


def _names(paths: list[Path]) -> str:
    return some(path.name for path in paths)


def _none_in(folder: Path, broken: list[Path], of: str) -> str:
    if broken:
        return f"No photo in {folder} can be read ({_names(broken)}). Save them again as {_KINDS}."
    if any(path.is_dir() for path in files(folder, of)):
        return f"There are no photos in {folder} itself. Name the folder inside it that holds them."
    return f"There are no photos in {folder}. Put {of} there, as {_KINDS}."
