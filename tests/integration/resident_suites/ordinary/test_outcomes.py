import logging
import sys
import unittest
import warnings

import pytest

def test_passes(): pass
def test_fails(): assert [1, 2] == [1, 3], "lists differ"
def test_raises(): raise ValueError("two\nlines")
def test_setup_error(bad_setup): pass
def test_teardown_error(bad_teardown): pass
def test_fails_and_teardown_error(bad_teardown): assert 0
def test_skips(): pytest.skip("not today")
def test_skips_without_reason(): pytest.skip()
@pytest.mark.skip
def test_marked_skip(): pass
@pytest.mark.skip(reason="Skipped: odd")
def test_marked_skip_reason(): pass
@pytest.mark.skipif(sys.version_info > (3,), reason="python 3")
def test_skipif(): pass
@pytest.mark.xfail(reason="known")
def test_xfails(): assert 0
@pytest.mark.xfail
def test_xpasses(): pass
@pytest.mark.xfail(strict=True, reason="must fail")
def test_xpasses_strictly(): pass
@pytest.mark.xfail(raises=KeyError)
def test_xfail_other_error(): raise ValueError
@pytest.mark.xfail(run=False, reason="would crash")
def test_xfail_not_run(): raise SystemExit(3)
def test_xfail_inside(): pytest.xfail("from inside")
@pytest.mark.xfail
def test_xfail_with_bad_setup(bad_setup): pass
def test_skip_in_teardown(request): request.addfinalizer(lambda: pytest.skip("late"))
def test_importorskip(): pytest.importorskip("nonexistent_module_x")
def test_system_exit(): sys.exit(4)
@pytest.mark.parametrize("value", [1, "a::b", "ünï", "x" * 300, b"\xff", "[brackets]", "new\nline", None])
def test_parametrised(value): assert value != 1
@pytest.mark.parametrize("value", ["same", "same"], ids=["a", "a"])
def test_equal_ids(value): pass
def test_output(capsys):
    print("to stdout"); print("to stderr", file=sys.stderr); logging.getLogger().warning("to log")
def test_shown_output(record_property):
    print("to stdout"); print("to stderr", file=sys.stderr); logging.getLogger().warning("to log")
    record_property("colour", "blue")
    assert 0
def test_surrogates():
    print("\udcff \x00 \x1b[31m"); assert 0, "lone \ud800"
@pytest.mark.filterwarnings("error")
def test_warning(): warnings.warn("oh")
def test_module_fixture(per_module): assert per_module in (1, 3)
def test_chdir(monkeypatch, tmp_path): monkeypatch.chdir(tmp_path)

class TestClass:
    state = None
    def test_one(self): assert self.state is None; self.state = 1
    def test_two(self): assert self.state is None

class TestUnit(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.up = True
    def test_passes(self): self.assertTrue(self.up)
    def test_fails(self): self.assertEqual(1, 2)
    def test_skips(self): self.skipTest("unit skip")
    @unittest.skip("decorated")
    def test_decorated(self): pass
    @unittest.expectedFailure
    def test_expected(self): self.fail()
    @unittest.expectedFailure
    def test_unexpected(self): pass
    def test_subtests(self):
        for i in range(3):
            with self.subTest(i=i): self.assertNotEqual(i, 1)
