import sys

import pytest
from bookshop.pricing import Line, discount, shipping, subtotal, total, vat


@pytest.mark.parametrize("price", [0, 1, 99, 100, 1999, 2500])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 10])
def test_subtotal_is_price_times_count(price, count):
    assert subtotal([Line("book", price, count)]) == price * count


@pytest.mark.parametrize(
    ("amount", "expected"),
    [(0, 0), (4_999, 0), (5_000, 250), (9_999, 499), (10_000, 1_000), (20_000, 2_000)],
)
def test_discount_grows_in_steps(amount, expected):
    assert discount(amount) == expected


@pytest.mark.parametrize("country", ["DE", "AT", "FR"])
@pytest.mark.parametrize("amount", [0, 2_999, 3_000, 50_000])
def test_shipping_is_free_only_at_home_from_thirty_on(country, amount):
    assert (shipping(amount, country=country) == 0) is (country == "DE" and amount >= 3_000)


@pytest.mark.parametrize(("kind", "expected"), [("book", 70), ("game", 171)])
def test_vat_depends_on_the_kind(kind, expected):
    assert vat(Line(kind, 1_070, 1)) == expected


def test_total_takes_the_discount_before_the_shipping():
    assert total([Line("book", 6_000, 1)], country="DE") == 5_700


@pytest.mark.skipif(sys.platform != "win32", reason="the till's drawer has a Windows driver only")
def test_drawer_opens():
    raise AssertionError("no drawer here")


@pytest.mark.xfail(reason="gift vouchers are not built yet")
def test_voucher_lowers_the_total():
    assert total([Line("voucher", -500, 1), Line("book", 1_000, 1)], country="DE") == 850 - 500
