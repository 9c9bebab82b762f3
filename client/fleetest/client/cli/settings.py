"""What the command takes from the environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleetest.common.settings import Secret, header_secret, path, setting, switch, text
from fleetest.common.tls import TlsSettings

__all__ = ["ClientSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings(TlsSettings):
    """
    Args:
        master: addresses, parted by commas; empty means the user's own cluster on this machine.
        token: of a client.
        data_directory: of the user's own cluster; `None` means where the platform keeps a user's data.
        debug: whether an unexpected error shows its traceback.
    """

    master: str = setting("FLEETEST_MASTER", text, default="")
    token: Secret = setting("FLEETEST_TOKEN", header_secret, default=Secret())
    project: str = setting("FLEETEST_PROJECT", text, default="")
    data_directory: Path | None = setting("FLEETEST_DATA_DIR", path, default=None)
    debug: bool = setting("FLEETEST_DEBUG", switch, default=False)

    @property
    def data(self) -> Path:
        """The data directory, chosen or the platform's."""
        if self.data_directory is not None:
            return self.data_directory
        import platformdirs

        return Path(platformdirs.user_data_dir("fleetest"))

    @property
    def cache(self) -> Path:
        """Where what may be lost at any time is kept."""
        import platformdirs

        return Path(platformdirs.user_cache_dir("fleetest"))
