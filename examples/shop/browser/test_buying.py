"""What a reader who has signed in does."""

import re

import pytest
from playwright.sync_api import Page, expect


@pytest.mark.parametrize(("title", "price"), [("Dune", "12.99"), ("Emma", "8.99")])
def test_book_can_be_bought(page: Page, title, price):
    page.goto("/")
    page.get_by_role("link", name=title).click()
    page.get_by_role("button", name="Buy").click()

    expect(page).to_have_url(re.compile(r"/orders/\d+"))
    expect(page.get_by_role("heading")).to_have_text("Order")
    expect(page.get_by_text(price)).to_be_visible()


def test_reader_is_still_signed_in(page: Page):
    page.goto("/")

    expect(page.get_by_text("Hello, Ada")).to_be_visible()
