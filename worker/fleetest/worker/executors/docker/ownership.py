"""An older place of `Owner`."""

from fleetest.worker.ownership import Owner

__all__ = ["Owner"]
