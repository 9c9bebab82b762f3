"""What a basket costs. All amounts are cents."""

from __future__ import annotations

from dataclasses import dataclass

VAT_PERCENT = {"book": 7, "game": 19}


@dataclass(frozen=True)
class Line:
    kind: str
    price: int
    count: int


def subtotal(lines: list[Line]) -> int:
    return sum(line.price * line.count for line in lines)


def discount(amount: int) -> int:
    """5 % from 50.00 on, 10 % from 100.00 on."""
    percent = 10 if amount >= 10_000 else 5 if amount >= 5_000 else 0
    return amount * percent // 100


def vat(line: Line) -> int:
    """The tax that the line's price holds."""
    percent = VAT_PERCENT[line.kind]
    return round(line.price * line.count * percent / (100 + percent))


def shipping(amount: int, *, country: str) -> int:
    if amount >= 3_000 and country == "DE":
        return 0
    return 350 if country == "DE" else 990


def total(lines: list[Line], *, country: str) -> int:
    amount = subtotal(lines)
    amount -= discount(amount)
    return amount + shipping(amount, country=country)
