"""Actions by their names, as a command line or a file has them: ``"wreath(symmetric(3), cyclic(4))"``.

The text is parsed, never run: only the constructors of `Action`, whole numbers, true and
false, names in quotes and lists are understood.
"""

import ast
from typing import Any

from fathometer.errors import InputError
from fathometer.symmetry.action import Action

CONSTRUCTORS = (
    "alternating",
    "cosets",
    "cyclic",
    "dihedral",
    "graph",
    "grid",
    "product",
    "regular",
    "subsets",
    "symmetric",
    "trivial",
    "tuples",
    "weight_space",
    "wreath",
)


def named_action(text: str) -> Action:
    """The action that a text describes in the words of the constructors.

    Args:
        text: For example ``"dihedral(5)"`` or ``"grid(6, 6, rotations=True)"``.

    Raises:
        InputError: If a word is unknown, or a constructor refuses its arguments.

    >>> named_action("wreath(symmetric(3), cyclic(4))").order
    5184
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise InputError(
            f'group is {text!r}; write a constructor with its arguments, "dihedral(5)".'
        ) from None
    found = _value(tree, text)
    if not isinstance(found, Action):
        raise InputError(f'group is {text!r}; write a constructor with its arguments, "dihedral(5)".')
    return found


def _value(node: ast.AST, text: str) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | str):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, text) for item in node.elts]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        name = node.func.id
        if name not in CONSTRUCTORS:
            raise InputError(f"group names {name!r}; choose from {', '.join(CONSTRUCTORS)}.")
        arguments = [_value(item, text) for item in node.args]
        options = {item.arg: _value(item.value, text) for item in node.keywords if item.arg}
        try:
            return getattr(Action, name)(*arguments, **options)
        except TypeError as cause:
            raise InputError(f"group is {text!r}: {cause}.") from None
    raise InputError(f"group is {text!r}; {ast.unparse(node)!r} is not a constructor, number or list.")
