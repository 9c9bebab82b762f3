from __future__ import annotations

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite

GOOD = "version: 1\nname: x\ntasks: {a: {run: x}}\n"


def check(text: str, line: int, column: int, message: str, hint: str = "") -> None:
    with pytest.raises(SuiteInvalid) as caught:
        load_suite(text, source="fleetest.yaml")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.message) == (line, column, message)
    assert hint in problem.hint


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but this\n", "~", "---\n"])
def test_an_empty_file_is_refused(text):
    with pytest.raises(SuiteInvalid, match="the suite is empty\n    Begin with"):
        load_suite(text, source="fleetest.yaml")


def test_a_file_that_is_no_mapping_is_refused():
    check("- a\n- b\n", 1, 1, "a suite is a mapping", "version: 1")


def test_a_second_document_is_refused():
    check(GOOD + "---\nname: y\n", 4, 1, "a second document begins here")


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("a: [1,", 2, 1, "did not find expected node content", "line 2"),
        ("name: a: b", 1, 8, "mapping values are not allowed in this context", "needs quotes"),
        ("a:\n\tb: 1", 2, 1, "found character that cannot start any token", "begins with a tab"),
        ("a: @x", 1, 4, "found character that cannot start any token", "needs quotes"),
        ("a: 1\nb\nc: 2", 2, 1, "could not find expected ':'", ""),
        ('a: "\\q"', 1, 5, "found unknown escape character", ""),
        ('a: "\\ud83d\\ude00"', 1, 7, "found invalid Unicode character escape code", "no surrogate pairs"),
        ("a: 'x", 1, 6, "found unexpected end of stream", ""),
    ],
)
def test_broken_yaml_is_refused_where_it_breaks(text, line, column, message, hint):
    check(text, line, column, f"not valid YAML: {message}", hint)


@pytest.mark.parametrize("character", ["\x00", "\x07", "\ud800", "\ufffe", "\ufeff"])
def test_characters_that_yaml_cannot_hold_are_refused_where_they_stand(character):
    check(f"version: 1\nname: ä{character}", 2, 8, f"character U+{ord(character):04X} cannot stand in YAML", "UTF-8")


def test_a_byte_order_mark_at_the_start_is_no_problem():
    assert load_suite("\ufeff" + GOOD, source="x").name == "x"


def test_a_key_given_twice_is_refused_at_the_second():
    check(GOOD + "name: y\n", 4, 1, "key 'name' is given twice", "line 2")
    check("version: 1\nname: x\ntasks: {a: {run: x, env: {A: 1, 'A': 2}}}", 3, 33, "key 'A' is given twice")


def test_keys_that_are_no_texts_and_tags_are_refused():
    check(GOOD + "? [a]\n: b\n", 4, 3, "a key must be a text", "Quote")
    check(
        "version: !!int 1\nname: x\ntasks: {a: {run: x}}", 1, 10, "tag 'tag:yaml.org,2002:int' is not used in a suite"
    )
    check("version: 1\nname: x\ntasks: {a: {run: !!python/object:os.system x}}", 3, 18, "tag 'tag:yaml.org,2002:python/object:os.system' is not used in a suite")  # fmt: skip


def test_aliases_need_an_anchor_before_them_and_merges_a_mapping():
    check("version: 1\nname: *x", 2, 7, "no anchor '&x' before this alias", "begins with '*'")
    check("a: &a [*a]", 1, 8, "no anchor '&a' before this alias")
    check("version: 1\nname: x\ntasks: {a: {run: x, <<: [y]}}", 3, 26, "'<<' merges mappings only")


def test_a_small_text_cannot_become_a_huge_suite():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
    )

    check(bomb, 7, 5, "this becomes too large", "aliases")


def test_a_deep_document_is_refused_before_it_is_read_whole():
    check("a: " + "[" * 900, 1, 24, "nested more than 20 levels deep")
    check("a: " + "{a: " * 900, 1, 81, "nested more than 20 levels deep")
    with pytest.raises(SuiteInvalid, match="nested more than 20 levels deep"):
        load_suite("a: " + "[" * 100_000, source="fleetest.yaml")


@pytest.mark.parametrize("character", ["x", "ä"])
def test_a_file_of_more_than_a_mebibyte_is_refused(character):
    check("# " + character * (1 << 20), 0, 0, "the suite is larger than 1048576 bytes", "Split")
