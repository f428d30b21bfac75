"""Multiply-adds: what one answer takes in convolutions and matrix products, the rest being small.

Counted by torch as the operations are called (`torch.utils.flop_counter`), half of its floating-point operations. So it
holds for models that run on torch in this process; others are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from outdo.contracts import Contestant, Measurement, Runnable, TestSet
from outdo.evaluation.axes._helpers import runnable, some


class MultiplyAdds:
    title = "multiply-adds"
    summary = "multiplications with their additions in one answer: convolutions and matrix products"
    unit = "operations"
    better = "lower"
    tolerance = 0.01  # another head is not another effort

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        if not len(test):
            return {}
        counts = {name: count(model, test) for name, model in runnable(contestants).items()}
        return {name: Measurement(float(operations), 1) for name, operations in counts.items() if operations}


def count(model: Runnable, test: TestSet) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.predict(some(test.inputs, 0, 1))
    return int(counter.get_total_flops()) // 2


PLUGIN = MultiplyAdds()
