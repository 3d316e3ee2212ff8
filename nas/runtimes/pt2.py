"""Open a .pt2 archive of torch.export without running anything of it but tensor operations.

`torch.export.load` unpickles weights, constants and sample inputs, loads compiled libraries, evaluates expressions and guards
as Python, resolves operators by attribute, and makes Python code of names. So the archive is looked into first: what a plain
network needs is checked and packed again, all else is refused. torch reads the new archive alone, never the file.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from nas.errors import CorruptRun, UnsafeFile
from nas.files import require_regular

MODEL, CONSTANTS = "models/model.json", "data/constants/model_constants_config.json"
WEIGHTS, INPUTS = "data/weights/model_weights_config.json", "data/sample_inputs/model.pt"
# of an archive that holds one network of plain tensors; what torch adds besides may be left away
_MEMBER = re.compile(
    rf"{MODEL}|{CONSTANTS}|{WEIGHTS}|data/weights/weight_\d+|data/constants/tensor_\d+|{INPUTS}|archive_format|archive_version|byteorder"
)
_OTHERS = re.compile(r"\.data/(version|serialization_id)|\.format_version|\.storage_alignment")
_NAME = re.compile(r"[A-Za-z0-9_.+]*")
_OPERATOR = re.compile(r"torch\.ops\.(aten|quantized_decomposed|torchvision)\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)")
_WRAPPER = re.compile(r"torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)")
_ARITHMETIC = re.compile(
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|torch\.sym_(int|float|max|min|not|ite|sum)|torch\._sym_sqrt|math\.(floor|ceil|trunc)"
)
# operators whose texts choose a mode; others open the file that a text names
_WITH_TEXT = frozenset(
    ("div", "einsum", "gelu", "pad", "meshgrid", "index_reduce", "scatter_reduce", "searchsorted", "bucketize")
    + ("conv1d", "conv2d", "conv3d")  # "same" and "valid" for their padding
)
# what expressions of sizes are made of, as sympy writes them
_FUNCTIONS = frozenset(
    "Symbol Integer Rational Add Mul Pow Max Min Mod PythonMod FloorDiv CleanDiv CeilDiv ModularIndexing CeilToInt FloorToInt "
    "TruncToInt IntTrueDiv ToFloat Eq Ne Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan".split()
)
_SYNTAX = (ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd)
_COMPARED = (ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_LONGEST, _MOST_POWERS, _LARGEST_POWER = 2000, 4, 8
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
Json = dict[str, Any]


def load(path: Path) -> torch.export.ExportedProgram:
    """The network of an archive, on the CPU. Raises UnsafeFile for what could execute, CorruptRun, and what torch does."""
    # not torch.export.load, which logs a traceback and goes on to read what old versions pickled
    from torch.export.pt2_archive._package import load_pt2  # the exporter is slow to import

    return load_pt2(io.BytesIO(checked(path))).exported_programs["model"]


def checked(path: Path) -> bytes:
    """An archive of the same network that holds nothing else. Raises UnsafeFile, CorruptRun."""
    members = _members(path)
    for name in (WEIGHTS, CONSTANTS):
        _check_tensors(path, name, members)
    program = _json(path, MODEL, members)
    _check_program(path, program)
    members[MODEL] = json.dumps(program).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    return packed.getvalue()


# -- the archive


def _members(path: Path) -> dict[str, bytes]:
    """Members by name, without the folder that all are in: each once, stored as it is, and known."""
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            found = {name: archive.read(info) for name, info in _listed(path, archive)}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeError) as error:
        raise CorruptRun(f"{str(path)!r} is no archive of torch.export ({error}); write it again with nas export") from error
    missing = [name for name in (MODEL, WEIGHTS, CONSTANTS, INPUTS) if name not in found]
    if missing:
        raise CorruptRun(f"{str(path)!r} has no {missing[0]}, as archives of torch.export do; write it again with nas export")
    if found[INPUTS]:
        raise _refused(path, f"pickled sample inputs in {INPUTS}")
    return found


def _listed(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    root, seen = "", set[str]()
    for info in archive.infolist():
        folder, _, name = info.filename.partition("/")
        root = root or folder
        if folder != root or name in seen or not (_MEMBER.fullmatch(name) or _OTHERS.fullmatch(name)):
            raise _refused(path, f"the member {info.filename[:80]!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise CorruptRun(f"{str(path)!r} has the compressed member {info.filename[:80]!r}, which torch does not write")
        seen.add(name)
        yield name, info


def _json(path: Path, name: str, members: Mapping[str, bytes]) -> Json:
    try:
        content = json.loads(members[name])
    except (ValueError, RecursionError) as error:
        raise CorruptRun(f"{str(path)!r} has a {name} that is not JSON ({error}); write it again with nas export") from error
    if not isinstance(content, dict):
        raise CorruptRun(f"{str(path)!r} has a {name} that is no JSON object; write it again with nas export")
    return content


def _check_tensors(path: Path, name: str, members: Mapping[str, bytes]) -> None:
    """All tensors are raw bytes of a member; nothing is pickled."""
    folder, config = name.rpartition("/")[0], _json(path, name, members).get("config")
    for tensor, payload in config.items() if isinstance(config, dict) else [("config", None)]:
        if not isinstance(payload, dict) or payload.get("use_pickle") is not False:
            raise _refused(path, f"the pickled tensor {tensor[:80]!r}")
        if f"{folder}/{payload.get('path_name')}" not in members:
            raise _refused(path, f"the object {str(payload.get('path_name'))[:80]!r}")
        _check_texts(path, payload)


# -- the program


def _check_program(path: Path, program: Json) -> None:
    """Operators, expressions and names; what torch would evaluate as Python and the network does without is dropped."""
    program["guards_code"] = []
    if program.get("verifiers", []) not in ([], ["TRAINING"], ["ATEN"]):
        raise _refused(path, f"the verifiers {str(program['verifiers'])[:80]}")
    for row in _dicts(path, program):
        if "metadata" in row:
            row["metadata"] = {}
        if "target" in row:
            _check_target(path, row)
        for name in ("in_spec", "out_spec"):
            if name in row:
                _check_spec(path, row[name])
        if "expr_str" in row:
            _check_expression(path, row["expr_str"])
        for name in ("custom_obj_values", "treespec_namedtuple_fields", "as_custom_obj", "as_opaque_obj"):
            if row.get(name):
                raise _refused(path, f"the {name} {str(row[name])[:80]}")
        _check_texts(path, row)


def _dicts(path: Path, value: Json) -> Iterator[Json]:
    """All objects of a JSON value."""
    left: list[object] = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            yield item
            left += item.values()
        elif isinstance(item, list):
            left += item


def _check_target(path: Path, node: Json) -> None:
    target = str(node["target"])
    match = _OPERATOR.fullmatch(target)
    if match is None:
        if not (_WRAPPER.fullmatch(target) or _ARITHMETIC.fullmatch(target)):
            raise _refused(path, f"a call of {target[:80]!r}")
        return
    packet = getattr(getattr(torch.ops, match[1]), match[2], None)
    if not isinstance(getattr(packet, match[3], None), torch._ops.OpOverload):
        raise _refused(path, f"a call of {target[:80]!r}")
    inputs = node.get("inputs")
    texts = [row for row in inputs if "as_string" in str(row)] if isinstance(inputs, list) else [inputs]
    if texts and match[2] not in _WITH_TEXT:
        raise _refused(path, f"a call of {target[:80]!r} with a text")


def _check_spec(path: Path, spec: object) -> None:
    """How inputs and outputs nest: tuples, lists and dicts alone; of other types torch would import the module."""
    try:
        content = json.loads(str(spec) or "null")
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"the structure {str(spec)[:80]!r}") from error
    for row in _dicts(path, {"spec": content}):
        plain = row.get("context") in (None, "null", "[]") or re.fullmatch(r"\[[\w\", ]*\]", str(row.get("context")))
        if row.get("type") not in _CONTAINERS or not plain or set(row) - {"spec", "type", "context", "children_spec"}:
            raise _refused(path, f"the structure {str(spec)[:80]!r}")


def _check_expression(path: Path, text: object) -> None:
    """Sizes in terms of symbols: sympy evaluates the text as Python."""
    try:
        tree = ast.parse(str(text)[: _LONGEST + 1], mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(path, f"the expression {str(text)[:80]!r}") from error
    nodes = list(ast.walk(tree))
    powers = [n for n in nodes if isinstance(n, ast.Pow) or (isinstance(n, ast.Name) and n.id == "Pow")]
    if len(str(text)) > _LONGEST or len(powers) > _MOST_POWERS or not all(_is_plain(n, bool(powers)) for n in nodes):
        raise _refused(path, f"the expression {str(text)[:80]!r}")


def _is_plain(node: ast.AST, has_powers: bool) -> bool:
    """Whether a part of an expression is a number, a symbol, or a function of such."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or re.fullmatch(r"[suz]\d+", node.id) is not None
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant) and node.arg in ("positive", "integer", "nonnegative", "real", "evaluate")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.fullmatch(r"[suz]\d+", node.value) is not None
    if isinstance(node, ast.Constant):
        value = node.value
        return isinstance(value, int | float) and not (has_powers and abs(value) > _LARGEST_POWER)
    return isinstance(node, (*_SYNTAX, *_COMPARED))


def _check_texts(path: Path, row: Json) -> None:
    """Names alone: torch makes Python code of them."""
    for name, value in row.items():
        texts = [name, *(value if isinstance(value, list) else [value])]
        if name not in ("in_spec", "out_spec", "expr_str", "as_string"):
            wrong = [text for text in texts if isinstance(text, str) and not _NAME.fullmatch(text)]
            if wrong:
                raise _refused(path, f"the name {wrong[0][:80]!r}")
        elif name == "as_string" and not re.fullmatch(r"[\w ,.>-]*", str(value)):
            raise _refused(path, f"the text {str(value)[:80]!r}")


def _refused(path: Path, what: str) -> UnsafeFile:
    return UnsafeFile(
        f"{str(path)!r} was not opened: it holds {what}, which could execute code, and networks that netcarver writes do not; "
        "get the file again from a source that you trust, or write it again with nas export"
    )
