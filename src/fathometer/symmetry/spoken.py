"""Actions by their names, as a command line or a file has them: ``"wreath(symmetric(3), cyclic(4))"``.

The text is parsed, never run: only the constructors of `Action`, whole numbers, true and
false, names in quotes and lists are understood.
"""

import ast
from typing import Any

from fathometer.errors import InputError
from fathometer.symmetry.action import Action

CONSTRUCTORS = (
    "alternating", "cosets", "cyclic", "dihedral", "graph", "grid", "product", "regular", "subsets",
    "symmetric", "trivial", "tuples", "weight_space", "wreath",
)  # fmt: skip


def named_action(text: str, outputs: Action | None = None) -> Action:
    """The action that a text describes in the words of the constructors.

    Args:
        text: For example ``"dihedral(5)"`` or ``"grid(6, 6, rotations=True)"``.
        outputs: How the same group acts on the outputs, as in the constructors.

    Raises:
        InputError: If a word is unknown, or a constructor refuses its arguments.

    >>> named_action("wreath(symmetric(3), cyclic(4))").order
    5184
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if not isinstance(tree, ast.Call):
        raise InputError(f'group {text!r} is not a call such as "dihedral(5)".')
    return _built(tree, {} if outputs is None else {"outputs": outputs})


def _built(node: ast.Call, extra: dict[str, Any]) -> Action:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in CONSTRUCTORS:
        raise InputError(
            f"there is no group {ast.unparse(node.func)!r}; there are {', '.join(CONSTRUCTORS)}."
        )
    arguments = [_argument(part) for part in node.args]
    options = {str(part.arg): _argument(part.value) for part in node.keywords}
    try:
        return getattr(Action, name)(*arguments, **options, **extra)
    except TypeError as cause:
        raise InputError(f"{ast.unparse(node)}: {str(cause).replace(f'Action.{name}()', name)}.") from None


def _argument(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _built(node, {})
    if isinstance(node, ast.List | ast.Tuple):
        return [_argument(part) for part in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | str):
        return node.value
    raise InputError(f"{ast.unparse(node)!r} is not a whole number, a list, True, False or a group.")
