from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.masking import MASK, Masker


def in_pieces(masker, content, size):
    stream = masker.stream()
    return b"".join([*(stream.feed(content[at : at + size]) for at in range(0, len(content), size)), stream.close()])


def test_secret_is_replaced_wherever_it_stands():
    masker = Masker(["hunter22"])

    assert masker.text("hunter22 is hunter22!") == f"{MASK} is {MASK}!"
    assert masker.text("hunter2") == "hunter2"


def test_short_secrets_are_left_alone():
    assert Masker(["abc", ""]).text("abc") == "abc"


@pytest.mark.parametrize("before", ["", "u", "us", "user:"])
def test_secret_is_found_in_base64_at_every_alignment(before):
    encoded = base64.b64encode(f"{before}open sesame!".encode()).decode()

    masked = Masker(["open sesame!"]).text(f"Authorization: Basic {encoded}")

    assert MASK in masked
    assert len(masked.replace(MASK, "").removeprefix("Authorization: Basic ")) <= len(before) * 4 / 3 + 4


def test_lines_of_a_secret_are_masked_one_by_one():
    masker = Masker(["first line\nsecond line\n"])

    assert masker.text("> second line <") == f"> {MASK} <"


def test_overlapping_secrets_become_one_mask():
    masker = Masker(["abcdef", "defghi"])

    assert masker.text("-abcdefghi-") == f"-{MASK}-"


def test_longer_secret_is_masked_whole_when_another_is_its_beginning():
    assert Masker(["pass", "password"]).text("password") == MASK


def test_text_that_is_not_valid_unicode_is_kept():
    assert Masker(["secret"]).text("\udc80 secret") == f"\udc80 {MASK}"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_secret_across_pieces_is_masked(size):
    masker = Masker(["hunter22", "22abc"])

    assert in_pieces(masker, b"a hunter22abc b hunter2", size) == b"a *** b hunter2"


def test_output_is_held_back_no_longer_than_it_may_be_a_secret():
    stream = Masker(["hunter22"]).stream()

    assert stream.feed(b"he saw a hunt") == b"he saw a "
    assert stream.feed(b"ing dog") == b"hunting dog"


@given(
    st.lists(st.text("ab", min_size=4, max_size=6), min_size=1, max_size=3),
    st.text("abc", max_size=40),
    st.integers(1, 10),
)
def test_no_secret_is_ever_shown_and_all_else_is(secrets, text, size):
    masker = Masker(secrets)

    shown = in_pieces(masker, text.encode(), size).decode()

    rest = shown
    for secret in secrets:
        assert secret not in shown
    position = 0
    for part in rest.split(MASK):
        position = text.index(part, position) + len(part)
