"""ISBN-13 check digits (ISO 2108)."""

from __future__ import annotations


def check_digit(first_twelve: str) -> int:
    if len(first_twelve) != 12 or not first_twelve.isdigit():
        raise ValueError(f"expected twelve digits, not {first_twelve!r}")
    weighted = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(first_twelve))
    return -weighted % 10


def is_valid(isbn: str) -> bool:
    digits = isbn.replace("-", "")
    return len(digits) == 13 and digits.isdigit() and check_digit(digits[:12]) == int(digits[12])
