"""Train one network: a teacher, or a student without distillation.

python train.py --model raunet --train_data_path data/kits/train --checkpoint_path checkpoints/teacher
python train.py --model resnet_18 --device cpu --size 256 --epochs 15
python train.py --model segresnet3d --block 16 --batch_size 32 --size 128
python train.py --model resnet_18_os8 --size 128 --init checkpoints/teacher/best.ckpt
python train.py --model raunet --checkpoint_path checkpoints/teacher --resume
python train.py --model raunet --checkpoint_path checkpoints/teacher --mode test
torchrun --nproc_per_node 4 train.py --model raunet --checkpoint_path checkpoints/teacher
"""

from __future__ import annotations

from engine.options import ALIASES, DataOptions, NetworkOptions, RunOptions, TrainingOptions
from utils.errors import run
from utils.options import Parser
from utils.ranks import is_rank, refuse_several_processes


def main() -> None:
    chosen, data, training = Parser(__doc__, ALIASES).read(NetworkOptions, DataOptions, TrainingOptions)
    if training.mode == "test" or not is_rank():
        refuse_several_processes()

    # PyTorch takes seconds to load, and --help should not wait for it.
    from engine.training.ranks import together
    from engine.training.run import decide_data, make_trainer, train
    from networks import network_name

    with together(training) as training:
        model = network_name(chosen.model or "raunet")
        run_options = RunOptions(model, decide_data(data), training, block=chosen.block)
        if training.mode == "test":
            from engine.evaluation.evaluate import test_run

            test_run(run_options, {"dataset": data.dataset, "task": data.task, "model": chosen.model and model})
            return
        train(make_trainer(run_options))


if __name__ == "__main__":
    run(main)
