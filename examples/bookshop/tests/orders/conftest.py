import time

import pytest
from bookshop.orders import OrderBook


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Expensive, as a real database would be: made once for each file."""
    time.sleep(0.3)
    book = OrderBook(str(tmp_path_factory.mktemp("orders") / "orders.sqlite"))
    yield book
    book.close()
