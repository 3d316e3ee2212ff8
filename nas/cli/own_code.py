"""Networks of the user's own code: a function that is imported and called."""

from __future__ import annotations

import importlib
import os
import sys

from torch import nn

from nas.cli.trust import PREFIX, is_named, remember
from nas.cost.users_code import place_of
from nas.errors import InvalidSetting


def module_of_function(name: str, classes: int | None) -> nn.Module:
    """The network of `package.module:function`, which is imported and called without arguments. Raises InvalidSetting."""
    module_name, colon, function = name.partition(":")
    if not (colon and module_name and function):
        raise InvalidSetting(f"network '{PREFIX}{name}' was not understood; write {PREFIX}package.module:function")
    # as `python -m` does; where the user did not name it, nothing of this folder takes the place of an installed package
    here, at = os.getcwd(), 0 if is_named(name) else len(sys.path)
    sys.path.insert(at, here)
    try:
        module = getattr(importlib.import_module(module_name), function)()
    except Exception as error:  # the user's code can raise anything
        reason = f"{type(error).__name__}: {error}{place_of(error)}"
        raise InvalidSetting(
            f"network '{PREFIX}{name}' cannot be made ({reason}); name a function that takes no arguments and gives the module"
        ) from error
    finally:
        sys.path.remove(here)
    if not isinstance(module, nn.Module):
        raise InvalidSetting(f"network '{PREFIX}{name}' is {type(module).__name__}; the function must return an nn.Module")
    remember(name)
    return module
