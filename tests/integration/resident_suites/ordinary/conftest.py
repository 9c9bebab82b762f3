import os
import pytest

class YamlItem(pytest.Item):
    def __init__(self, *, expected, **kw):
        super().__init__(**kw)
        self.expected = expected
    def runtest(self):
        assert self.expected == "ok"
    def repr_failure(self, excinfo):
        return "not ok: " + self.expected
    def reportinfo(self):
        return self.path, None, "case " + self.name

class CaseFile(pytest.File):
    def collect(self):
        for line in self.path.read_text().splitlines():
            name, _, expected = line.partition("=")
            yield YamlItem.from_parent(self, name=name, expected=expected)

def pytest_collect_file(parent, file_path):
    if file_path.suffix == ".cases":
        return CaseFile.from_parent(parent, path=file_path)

@pytest.fixture(scope="session")
def log(tmp_path_factory):
    return []

@pytest.fixture(scope="module")
def per_module(log):
    log.append("up")
    yield len(log)
    log.append("down")

@pytest.fixture
def bad_setup():
    raise RuntimeError("no luck")

@pytest.fixture
def bad_teardown():
    yield
    raise RuntimeError("late")
