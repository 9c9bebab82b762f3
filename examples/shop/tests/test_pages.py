"""The shop's pages, as a browser would get them."""

import os
import urllib.error
import urllib.request

import pytest

SHOP = os.environ["SHOP_URL"]


def page(path):
    with urllib.request.urlopen(SHOP + path, timeout=10) as answer:
        return answer.read().decode()


@pytest.mark.parametrize(("number", "price"), [(1, "12.99 €"), (2, "8.99 €"), (3, "15.99 €")])
def test_book_has_its_price(number, price):
    assert price in page(f"/books/{number}")


def test_all_books_are_on_the_first_page():
    first = page("/")

    assert all(title in first for title in ("Dune", "Emma", "Ulysses"))


def test_page_that_does_not_exist_is_not_found():
    with pytest.raises(urllib.error.HTTPError, match="404"):
        page("/books/99")
