"""Leaves a signed-in reader's cookies behind, which the other browser tests begin with."""

from playwright.sync_api import Page, expect


def test_reader_is_greeted_after_signing_in(page: Page):
    page.goto("/")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Name").fill("Ada")
    page.get_by_role("button", name="Go").click()

    expect(page.get_by_text("Hello, Ada")).to_be_visible()
    page.context.storage_state(path="reader.json")
