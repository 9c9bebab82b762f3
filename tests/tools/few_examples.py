"""A plugin for pytest: tests whose input Hypothesis makes up are run on few examples. Whether they pass is the same."""

from hypothesis import settings

settings.register_profile("few", max_examples=5)
settings.load_profile("few")
