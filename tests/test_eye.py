import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from persona.eye import distance, look


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    patches = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def test_black_and_white_are_one_apart() -> None:
    assert distance(Image.new("L", (9, 9)), Image.new("L", (9, 9), 255)) == pytest.approx(1, abs=1e-3)


@given(a=st.integers(0, 99), b=st.integers(0, 99), c=st.integers(0, 99))
def test_it_is_a_distance(a: int, b: int, c: int) -> None:
    one, two, three = map(picture, (a, b, c))
    assert distance(one, one) == 0
    assert distance(one, two) == distance(two, one)
    assert distance(one, three) <= distance(one, two) + distance(two, three) + 1e-9


def test_size_and_mode_do_not_matter_and_a_description_has_a_fixed_length() -> None:
    assert look(picture(0)).shape == look(Image.new("1", (3, 500))).shape == (4080,)
    assert distance(picture(0), picture(0, (640, 480))) < 0.05


def test_what_looks_more_different_is_farther() -> None:
    whole = picture(0)
    assert distance(whole, whole.filter(ImageFilter.GaussianBlur(1))) < 0.05 < distance(whole, picture(1))
    grey = [Image.new("L", (8, 8), level) for level in (0, 60, 120, 255)]
    steps = [distance(grey[0], other) for other in grey]
    assert steps == sorted(steps)


def test_steps_of_light_are_even_to_the_eye_not_to_the_numbers() -> None:
    """CIE lightness 0, 50 and 100 are sRGB 0, 119 and 255: equal steps, though 119 is only 0.18 of the light."""
    black, middle, white = (Image.new("L", (8, 8), level) for level in (0, 119, 255))
    assert distance(black, middle) / distance(middle, white) == pytest.approx(1, abs=0.35)
