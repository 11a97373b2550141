"""The former place of `datasets.raw.volume`, for scripts that import it from here."""

from datasets.raw.volume import *  # noqa: F403
