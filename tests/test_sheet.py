from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from persona.sheet import Row, sheet


def test_a_sheet_shows_every_picture_and_caption() -> None:
    red, blue = Image.new("RGB", (40, 20), "red"), Image.new("RGB", (600, 300), "blue")
    rows = [Row("a caption " * 30, [(red, "seed 0"), (blue, "seed 1"), (red, "")]), Row("", [(blue, "")])]
    page = sheet(rows, columns=2)
    colours = {colour: number for number, colour in page.getcolors(page.width * page.height) or ()}
    assert page.width == 2 * 256 + 3 * 8
    assert colours[255, 0, 0] == 2 * 40 * 20
    assert colours[0, 0, 255] == 2 * 256 * 128


def test_a_caption_is_written_out_in_full() -> None:
    """What is told of a row takes as many lines as it needs, and each line is of ink."""

    def ink(caption: str) -> int:
        page = sheet([Row(caption, [(Image.new("RGB", (40, 20), "white"), "")])])
        return sum(page.convert("L").histogram()[:128])

    assert 0 == ink("") < ink("a dog") < ink("a dog " * 30)


def test_what_is_broken_into_lines_leaves_none_with_a_single_picture() -> None:
    nine = sheet([Row("", [(Image.new("RGB", (30, 30)), "")] * 9)])
    assert nine.size == (5 * 38 + 8, 2 * 38 + 2 * 8)


@given(caption=st.text(), columns=st.integers(1, 4), number=st.integers(1, 6))
def test_any_caption_can_be_set(caption: str, columns: int, number: int) -> None:
    page = sheet([Row(caption, [(Image.new("L", (30, 30)), caption)] * number)], columns)
    assert page.mode == "RGB"
