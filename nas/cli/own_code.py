"""Networks of the user's own code: a module, or a function that gives one, which is imported."""

from __future__ import annotations

import copy
import importlib
import os
import sys
from difflib import get_close_matches
from typing import Any

from torch import nn

from compress.prune.adapting import unwrapped
from nas.cli.trust import PREFIX, is_named, remember
from nas.cost.users_code import place_of
from nas.errors import InvalidSetting

NEAR = 3  # names that are suggested


def module_of_own_code(name: str, classes: int | None) -> nn.Module:
    """What `package.module:NAME` is: a module, or a function that gives one without arguments. Raises InvalidSetting."""
    module_name, colon, attribute = name.partition(":")
    if not (colon and module_name and attribute):
        raise InvalidSetting(f"network '{PREFIX}{name}' was not understood; write {PREFIX}package.module:function")
    # as `python -m` does; where the user did not name it, nothing of this folder takes the place of an installed package
    here, at = os.getcwd(), 0 if is_named(name) else len(sys.path)
    sys.path.insert(at, here)
    try:
        found = _attribute(importlib.import_module(module_name), attribute)
        # a module of its own for each call: what is cut must not be cut twice
        module = copy.deepcopy(found) if isinstance(found, nn.Module) else found()
    except InvalidSetting:
        raise
    except (Exception, SystemExit) as error:  # the user's code can raise anything, and a script may end the program
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}{place_of(error)}"
        raise InvalidSetting(
            f"network '{PREFIX}{name}' cannot be made ({reason}); name a module, or a function without arguments that gives one"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(module, nn.Module):
        raise InvalidSetting(f"network '{PREFIX}{name}' is {type(module).__name__}; the function must return an nn.Module")
    remember(name)
    return unwrapped(module)


def _attribute(module: object, name: str) -> Any:  # noqa: ANN401 - the user's own
    if hasattr(module, name):
        return getattr(module, name)
    own = [n for n, value in vars(module).items() if callable(value) or isinstance(value, nn.Module)]
    near = get_close_matches(name, own, n=NEAR) or own[:NEAR]
    file = getattr(module, "__name__", "")
    raise InvalidSetting(f"network '{PREFIX}{file}:{name}': {file} has no {name!r}; it has {', '.join(near) or 'nothing'}")
