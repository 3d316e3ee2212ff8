"""Multiply-adds and parameters of many architectures at once, exactly as counted from their plans."""

from __future__ import annotations

from math import prod

import numpy as np

from nas.architecture import Option, SearchSpace
from nas.cost.counting import MACS, macs, params
from nas.errors import InvalidArchitecture, InvalidSetting
from nas.plan import PlanBlock

COLUMNS = ("macs", "params")


class CostTable:
    """Totals of encoded architectures of one space.

    A block of a plan depends on a few decisions alone, so each combination of their options is counted once, when it is
    first seen, and every further architecture is a look-up and a sum.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space.id
        self._options = np.array([len(choice.options) for choice in space.choices])
        column = {choice.name: i for i, choice in enumerate(space.choices)}
        options = [(None, *choice.options) for choice in space.choices]
        self._blocks = []
        for block in space.blocks:
            columns = [column[name] for name in block.depends_on]
            self._blocks.append(_BlockTable(block, columns, [options[i] for i in columns]))

    def totals(self, encoded: np.ndarray) -> np.ndarray:
        """Multiply-adds and parameters (n, 2), int64, of the rows (n, choices) that SearchSpace.encode gave.

        Raises InvalidArchitecture if `encoded` has another number of columns or a number that is no option, InvalidSetting
        if the plan has an operation that cannot be counted.
        """
        if encoded.ndim != 2 or encoded.shape[1] != len(self._options):
            raise InvalidArchitecture(
                f"encoded shape {encoded.shape} given to {self._space}; expected (n, {len(self._options)})"
            )
        if np.any(encoded < 0) or np.any(encoded > self._options):
            raise InvalidArchitecture(f"encoded rows hold a number that is no option of space {self._space}; use its encode()")
        columns = np.ascontiguousarray(encoded.T, dtype=np.int64)
        result = np.zeros((len(encoded), len(COLUMNS)), dtype=np.int64)
        for block in self._blocks:
            result += block.look_up(columns)
        return result


class _BlockTable:
    """Costs of one block by the mixed-radix code of the decisions that it depends on, sorted by code."""

    def __init__(self, block: PlanBlock, columns: list[int], options: list[tuple[Option | None, ...]]) -> None:
        self._block, self._columns, self._options = block, columns, options
        self._radices = tuple(len(o) for o in options)
        assert prod(self._radices) < 2**63, f"block {block.name} depends on more decisions than a code holds"
        last = np.iinfo(np.int64).max  # a code that no architecture has, so that every search ends inside the array
        self._codes = np.array([last])
        self._costs = np.zeros((1, len(COLUMNS)), dtype=np.int64)

    def look_up(self, columns: np.ndarray) -> np.ndarray:
        """Costs (n, 2) for the transposed encoding (choices, n)."""
        codes = np.zeros(columns.shape[1], dtype=np.int64)
        for column, radix in zip(self._columns, self._radices, strict=True):
            codes = codes * radix + columns[column]
        place = np.searchsorted(self._codes, codes)
        unseen = codes[self._codes[place] != codes]
        if len(unseen):
            self._learn(np.unique(unseen))
            place = np.searchsorted(self._codes, codes)
        return self._costs[place]

    def _learn(self, codes: np.ndarray) -> None:
        costs = np.array([self._count(int(code)) for code in codes], dtype=np.int64)
        place = np.searchsorted(self._codes, codes)
        self._codes = np.insert(self._codes, place, codes)
        self._costs = np.insert(self._costs, place, costs, axis=0)

    def _count(self, code: int) -> tuple[int, int]:
        values: dict[str, object] = {}
        for name, options in zip(reversed(self._block.depends_on), reversed(self._options), strict=True):
            code, index = divmod(code, len(options))
            values[name] = options[index]
        layers = self._block.build(values, "source")
        unknown = [layer.op for layer in layers if layer.op not in MACS]
        if unknown:
            raise InvalidSetting(f"block {self._block.name!r} has operation {unknown[0]!r}, which nas.cost.counting.MACS lacks")
        return sum(map(macs, layers)), sum(map(params, layers))
