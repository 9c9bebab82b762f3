import pytest
from bookshop.isbn import check_digit, is_valid


@pytest.mark.parametrize("first_twelve", [f"9783161484{number:02d}" for number in range(0, 100, 4)])
def test_check_digit_makes_a_valid_isbn(first_twelve):
    assert is_valid(first_twelve + str(check_digit(first_twelve)))


@pytest.mark.parametrize("wrong", range(1, 10))
def test_any_other_digit_is_refused(wrong):
    digit = check_digit("978316148410")

    assert not is_valid("978316148410" + str((digit + wrong) % 10))


@pytest.mark.parametrize("text", ["", "978", "978316148410x", "9783161484101234", "abcdefghijkl"])
def test_what_is_no_isbn_is_refused(text):
    assert not is_valid(text)
    if len(text) != 12 or not text.isdigit():
        with pytest.raises(ValueError, match="twelve digits"):
            check_digit(text)
