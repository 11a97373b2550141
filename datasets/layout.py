"""The former place of `datasets.raw.layout`, for scripts that import it from here."""

from datasets.raw.layout import *  # noqa: F403
