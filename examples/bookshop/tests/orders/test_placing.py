import time

import pytest
from bookshop.pricing import Line


@pytest.mark.parametrize("customer", ["ada", "grace", "edsger", "barbara", "donald", "margaret"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_placed_order_is_open(book, customer, count):
    time.sleep(0.02)

    order = book.place(customer, [Line("book", 1_500, count)])

    assert book.state(order) == "open"


def test_order_without_lines_is_refused(book):
    with pytest.raises(ValueError, match="at least one line"):
        book.place("nobody", [])
