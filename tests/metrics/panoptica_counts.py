"""Found, false and missed lesions by panoptica, in its own environment: ``python panoptica_counts.py CASES.npz``."""

from __future__ import annotations

import json
import sys

import numpy as np
from panoptica import ConnectedComponentsInstanceApproximator, InputType, NaiveThresholdMatching, Panoptica_Evaluator


def main(file: str) -> None:
    """Prints a JSON list of ``[tp, fp, fn]`` of the pairs that the file holds as ``pred_0``, ``truth_0`` and so on."""
    cases = np.load(file)
    evaluator = Panoptica_Evaluator(
        InputType.SEMANTIC, ConnectedComponentsInstanceApproximator(), NaiveThresholdMatching(matching_threshold=0.25)
    )
    counts = []
    for number in range(len(cases) // 2):
        pair = (cases[f"{name}_{number}"].astype(np.uint8) for name in ("pred", "truth"))
        result = evaluator.evaluate(*pair, verbose=False)["ungrouped"]
        counts.append([int(result.tp), int(result.fp), int(result.fn)])
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1])
