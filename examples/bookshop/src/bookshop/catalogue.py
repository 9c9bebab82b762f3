"""Prints the catalogue, and a JUnit report on its ISBNs."""

from __future__ import annotations

import argparse
from pathlib import Path

from bookshop.isbn import is_valid

BOOKS = {
    "978-3-16-148410-0": "The Example",
    "978-0-306-40615-7": "Numbers, Checked",
    "978-1-86197-876-9": "A Shop of One's Own",
    "978-0-13-110362-7": "A Language",
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--junit", type=Path, required=True)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.junit.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"<tr><td>{isbn}</td><td>{title}</td></tr>" for isbn, title in BOOKS.items())
    options.out.write_text(f"<!doctype html><title>Catalogue</title><table>{rows}</table>\n")
    cases = "".join(
        f'<testcase classname="catalogue" name="{isbn}" time="0.001">'
        + ("" if is_valid(isbn) else '<failure message="wrong check digit"/>')
        + "</testcase>"
        for isbn in BOOKS
    )
    options.junit.write_text(f'<testsuite name="catalogue" tests="{len(BOOKS)}">{cases}</testsuite>\n')
    print(f"wrote {options.out} with {len(BOOKS)} books")


if __name__ == "__main__":
    main()
