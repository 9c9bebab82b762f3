import time

import pytest
from bookshop.pricing import Line


@pytest.mark.parametrize("price", [500, 1_000, 2_500, 5_000, 10_000, 20_000])
def test_paid_order_counts_as_turnover(book, price):
    time.sleep(0.05)
    before = book.turnover()
    order = book.place("ada", [Line("book", price, 1)])

    book.pay(order)

    assert book.turnover() > before


def test_order_is_paid_once(book):
    order = book.place("grace", [Line("game", 4_000, 1)])
    book.pay(order)

    with pytest.raises(LookupError, match="cannot be paid"):
        book.pay(order)


def test_unknown_order_cannot_be_paid(book):
    with pytest.raises(LookupError):
        book.pay(10_000)
