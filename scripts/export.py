"""Write a trained network as ONNX, torch.export and safetensors files, each checked against PyTorch before it is kept.

    python scripts/export.py --ckpt best.ckpt --outpath exported
    python scripts/export.py --ckpt best.ckpt --outpath exported --int8 --train_data_path data/kits
    python scripts/export.py --ckpt best.ckpt --outpath exported --results results.json --licence "CC BY-NC-SA 4.0"
    python scripts/predict.py --ckpt exported/model.onnx --inpath case.nii.gz --outpath predictions

model.onnx takes any batch and size, and holds the window, the frame, the labels and the chosen decision: predict.py and
evaluate.py need nothing else, and docs/deploy.md shows its use without this project.
"""

from __future__ import annotations

import _root  # noqa: F401

from engine.export.options import ALIASES, ExportOptions, Int8Options
from utils.errors import run
from utils.options import Parser
from utils.ranks import refuse_several_processes


def main() -> None:
    refuse_several_processes()
    options, int8 = Parser(__doc__, ALIASES).read(ExportOptions, Int8Options)

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.export.export import export

    written = export(options, int8)
    print(f"written: {', '.join(map(str, written))}")


if __name__ == "__main__":
    run(main)
