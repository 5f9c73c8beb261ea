"""The values in a MONAI bundle's configuration that are data; expressions are not run.

``@name`` and ``@name#inner`` stand for another value of the file, and so does ``$@name``. Of what
begins with ``$``, which MONAI runs as Python, literals are understood, and a choice between them by
a value of the file. Everything else is refused by name.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from ...core.errors import ModelError
from ...core.json_fields import shown

MAX_DEPTH = 20
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:#|::)\w+)*)")


class Values:
    """A configuration's values as data.

    Args:
        config: what the file says. name: of the file, for messages.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self.config, self.name = config, name

    def of(self, value: Any, where: str, depth: int = 0) -> Any:
        """A value without references and expressions.

        Args:
            where: what it is of, for messages.

        Raises:
            ModelError: it is an expression that is no data, or refers to nothing or to itself.
        """
        if depth > MAX_DEPTH:
            raise ModelError(f"{shown(where)} in {self.name} refers to itself.")
        if isinstance(value, Mapping):
            return {key: self.of(v, f"{where}#{key}", depth + 1) for key, v in value.items()}
        if isinstance(value, list):
            return [self.of(v, where, depth + 1) for v in value]
        if not isinstance(value, str) or value[:1] not in ("@", "$"):
            return value
        match = _REFERENCE.fullmatch(value.removeprefix("$").strip())
        if match:
            return self.of(self._find(match[1], where), where, depth + 1)
        if value.startswith("$"):
            return self._literal(value, where, depth)
        raise self._refused(value, where)

    def _find(self, reference: str, where: str) -> Any:
        found: Any = self.config
        for key in re.split(r"#|::", reference):
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise ModelError(
                    f"{shown(where)} in {self.name} refers to {shown('@' + reference)}, which is "
                    "not there."
                )
        return found

    def _literal(self, text: str, where: str, depth: int) -> Any:
        names: dict[str, str] = {}

        def stand_in(match: re.Match[str]) -> str:
            name = f"_reference_{len(names)}"
            names[name] = match[1]
            return name

        try:
            tree = ast.parse(_REFERENCE.sub(stand_in, text[1:]).strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(text, where) from error

        def value_of(node: ast.AST, level: int = 0) -> Any:
            if level > MAX_DEPTH:
                raise self._refused(text, where)
            if isinstance(node, ast.Constant) and isinstance(
                node.value, bool | int | float | str | None
            ):
                return node.value
            if isinstance(node, ast.List | ast.Tuple):
                return [value_of(item, level + 1) for item in node.elts]
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
                number = value_of(node.operand, level + 1)
                if isinstance(number, int | float):
                    return -number
            if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                return not value_of(node.operand, level + 1)
            if isinstance(node, ast.IfExp):
                chosen = node.body if value_of(node.test, level + 1) else node.orelse
                return value_of(chosen, level + 1)
            if isinstance(node, ast.Name) and node.id in names:
                return self.of(self._find(names[node.id], where), where, depth + 1)
            raise self._refused(text, where)

        return value_of(tree.body)

    def _refused(self, text: str, where: str) -> ModelError:
        return ModelError(
            f"{shown(where)} in {self.name} is the expression {shown(text)}, which is not run. "
            "Write its value there."
        )
