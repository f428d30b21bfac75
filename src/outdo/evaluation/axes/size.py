"""Size: the weights as they lie on disk, backbone included."""

from __future__ import annotations

from collections.abc import Sequence

from outdo.contracts import Contestant, Measurement, TestSet


class Size:
    title = "size"
    summary = "weights on disk, backbone included"
    unit = "bytes"
    better = "lower"
    tolerance = 0.01  # another head is not another size

    def measure(self, contestants: Sequence[Contestant], test: TestSet) -> dict[str, Measurement]:
        return {c.name: Measurement(float(size), 1, detail={"parameters": c.model.parameters()})
                for c in contestants if c.model is not None and (size := c.model.size_bytes()) is not None}


PLUGIN = Size()
