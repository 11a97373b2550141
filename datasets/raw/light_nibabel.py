"""nibabel without pydicom, which it would load only for NIfTI extensions in DICOM, and which takes half of its start.

Such an extension is kept as bytes here; DICOM itself is read by highdicom.
"""

from __future__ import annotations

import sys

if "pydicom" in sys.modules:
    import nibabel as nib
else:
    sys.modules["pydicom"] = None  # type: ignore[assignment]  # As if it was not installed.
    try:
        import nibabel as nib
    finally:
        del sys.modules["pydicom"]

__all__ = ["nib"]
