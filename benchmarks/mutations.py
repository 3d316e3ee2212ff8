"""How benchmarks/fuzz_files.py changes a valid file: in its bytes, its text, or its fields."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from contextlib import suppress

from benchmarks.fuzz import bytes_changed, changed

Mutate = Callable[[bytes, random.Random], bytes]
# what takes the place of a word or number of a text
WORDS = (
    "nan inf -inf 0 -1 1 3 1e308 1e400 0.5 true false [1,2] [[1]] {} {x=1} [nan] 1979-05-27 3x100000x100000 3x0x0 x ../../x "
    "/etc/passwd python:os:abort %s = , ; \" ' [ ] [[pass]] # \t \0 \ufeff \u2028 é"
).split(" ") + ["9" * 21, "9" * 5000, '"\\ud800"', '""', "\n"]


def text_changed(content: bytes, rng: random.Random) -> bytes:
    """A word or number of a text replaced, left out or doubled; now and then bytes."""
    if rng.random() < 0.2:
        return bytes_changed(content, rng)
    words = list(re.finditer(rb"[\w.%:+-]+|[^\w\s]", content))
    word = rng.choice(words)
    put = rng.choice([rng.choice(WORDS).encode("utf-8", "surrogatepass"), b"", word[0] * 2, rng.choice(words)[0]])
    return content[: word.start()] + put + content[word.end() :]


def table_changed(content: bytes, rng: random.Random) -> bytes:
    """The JSON head of a latency table, or its rows."""
    head, _, rows = content.partition(b"\n")
    if rng.random() < 0.5:
        return b"# " + json.dumps(changed(json.loads(head.removeprefix(b"# ")), rng)).encode() + b"\n" + rows
    return head + b"\n" + text_changed(rows, rng)


def onnx_changed(content: bytes, rng: random.Random) -> bytes:
    """One to three fields of the message replaced, left out, doubled or exchanged."""
    import onnx  # only for this kind

    if rng.random() < 0.15:
        return bytes_changed(content, rng)
    model = onnx.load_model_from_string(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        with suppress(ValueError):  # a number that the field cannot be
            _field_changed(model, rng)
    return bytes(model.SerializeToString())


def _field_changed(model: object, rng: random.Random) -> None:
    message, field = rng.choice(list(_fields(model)))
    value, kind = getattr(message, field.name), rng.random()
    repeated = not isinstance(value, int | float | str | bytes) and hasattr(value, "__len__")
    if kind < 0.15 or (field.message_type and not repeated):
        message.ClearField(field.name)
    elif field.message_type:
        one = rng.randrange(len(value))
        if kind < 0.5:
            del value[one]
        else:
            value.add().CopyFrom(value[one])
    elif repeated:
        if kind < 0.4:
            del value[rng.randrange(len(value))]
        else:
            value.append(_number_or_text(value[0], rng))
    else:
        setattr(message, field.name, _number_or_text(value, rng))


def _number_or_text(like: object, rng: random.Random) -> object:
    if isinstance(like, int):
        return rng.choice([0, 1, 2, 3, 7, 65536, 2**31 - 1])
    if isinstance(like, float):
        return rng.choice([0.0, float("nan"), float("inf"), -1.0])
    text = rng.choice(["", *"x out Conv Gemm MatMul If Loop Constant Reshape Einsum Transpose own ../x".split()])
    return text if isinstance(like, str) else rng.choice([text.encode(), b"\xff\xfe", bytes(4096)])


def _fields(message):  # noqa: ANN001, ANN202 - of protobuf, which has no types
    for field, value in message.ListFields():
        yield message, field
        if field.message_type:
            for part in value if hasattr(value, "__len__") else [value]:
                yield from _fields(part)


def json_changed(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(changed(json.loads(content), rng)).encode() if rng.random() < 0.8 else bytes_changed(content, rng)
