import pytest
nope = pytest.importorskip("nonexistent_module_y", reason="needs y")
def test_never(): pass
