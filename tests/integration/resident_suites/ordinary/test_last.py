"""Doctests.

>>> 1 + 1
2
"""
import pytest

def double(x):
    """
    >>> double(2)
    5
    """
    return 2 * x

def test_module_fixture(per_module): assert per_module in (1, 3)
