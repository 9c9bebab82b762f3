"""The payment gateway: a stand-in for the kind of peer that does not answer the first time."""

import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("card", ["visa", "master", "amex", "girocard"])
def test_card_is_accepted(card):
    assert card.isalpha()


def test_gateway_answers():
    """Fails the first time in each run, on whatever machine, and passes from then on: a flaky test to look at."""
    seen = Path("/tmp", f"bookshop-gateway-{os.environ.get('FLEETEST_RUN_ID', 'local')}")

    if not seen.exists():
        seen.touch()
        pytest.fail("the gateway did not answer within 2 s")
    seen.unlink()
