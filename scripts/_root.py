"""Puts the repository first on the import path: its packages take precedence over installed ones of the same name."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
