"""Tables as text and Markdown: what a number reads like, and that no cell can break out of its table."""

import re

import pytest

from closure_jax.pages import tables
from closure_jax.pages.tables import Table

HOSTILE = "<script>alert(1)</script> | `x`\n| y"


def test_a_number_has_the_digits_that_tell_it_apart():
    for value, text in (
        (0.0026, "0.00260"),
        (0.909, "0.909"),
        (1.01, "1.010"),
        (12.34, "12.3"),
        (99.97, "100"),
        (184.0, "184"),
        (12345.6, "12346"),
        (0.9876, "0.988"),
        (0.9999987611, "0.9999988"),
        (0.9962385, "0.9962"),
        (1.0, "1"),
        (0.0, "0"),
        (-3.2e-7, "-3.20 · 10⁻⁷"),
        (1.5e9, "1.50 · 10⁹"),
        (float("inf"), "not finite"),
        (float("nan"), "not finite"),
    ):
        assert tables.number_text(value) == text


@pytest.mark.parametrize("digits", [2, 3, 5, 7])
def test_what_a_measure_lacks_of_one_is_never_rounded_away(digits):
    lacking = 10.0**-digits * 1.7
    assert 1 - float(tables.number_text(1 - lacking)) == pytest.approx(lacking, rel=0.05)


def test_plain_text_is_aligned_with_numbers_to_the_right():
    table = Table(
        ("name", "first", "second", "note"), [("a", 0.5, None, "why"), ("longer", 12, 1e-6, "because")], notes=1
    )
    lines = table.plain(indent="  ").splitlines()
    ends = [line.rindex(cell) + len(cell) for line, cell in zip(lines, ("first", "0.500", "12"), strict=True)]
    assert len(set(ends)) == 1
    assert len({line.index(cell) for line, cell in zip(lines, ("note", "why", "because"), strict=True)}) == 1
    assert all(line.startswith("  ") and line == line.rstrip() for line in lines)
    assert tables.DASH in lines[1]


def test_a_cell_of_markdown_stays_in_its_cell():
    text = Table(("model", "value"), [(HOSTILE, 1.5), ("plain", None)]).markdown()
    assert len(text.splitlines()) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()} == {3}
    assert "<" not in text and "&lt;script&gt;" in text
