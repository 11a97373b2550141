"""What the methods with trained transforms of the student's maps have in common."""

from __future__ import annotations

import pytest
import torch

from tests.golden.features import STUDENT, TEACHER, random_features
from tests.small import make_method
from utils.batch import Batch


@pytest.mark.parametrize("name", ["fitnet", "ofd", "reviewkd", "mgd", "vid", "ickd"])
def test_one_slice_whose_deepest_map_is_one_pixel(name: str) -> None:
    sizes = ((16, 9), (8, 5), (4, 3), (2, 2), (1, 1))
    student, teacher = (random_features(each, sizes, seed) for seed, each in enumerate((STUDENT, TEACHER)))
    student, teacher = (
        each._replace(encoder=tuple(maps[:1].detach().requires_grad_() for maps in each.encoder))
        for each in (student, teacher)
    )
    batch = Batch(torch.zeros(1, 1, 16, 9), torch.zeros(1, 16, 9, dtype=torch.uint8), ["case"])
    torch.manual_seed(0)
    terms = make_method(name, STUDENT, TEACHER)(student, teacher, batch)
    loss = torch.stack(list(terms.values())).sum()
    gradients = torch.autograd.grad(loss, student.encoder, allow_unused=True)
    assert loss.isfinite()
    assert all(each is None or each.isfinite().all() for each in gradients)
