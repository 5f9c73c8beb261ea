"""A double of ``slicer.parameterNodeWrapper``: plain values, choices, ranges, nodes, and widgets.

Values are kept in the node's parameters as Slicer keeps them, so that a scene saved here is one
that Slicer reads.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk

PROPERTY = "SlicerParameterName"


class Choice:
    """One of these values."""

    def __init__(self, choices: typing.Iterable[Any]) -> None:
        self.choices = list(choices)

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")


class WithinRange:
    """From the least to the largest, both allowed."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} to {self.maximum}")


class Default:
    """The value at first."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Parameter:
    """One typed value of a node."""

    def __init__(self, name: str, annotation: Any, given: Any) -> None:
        self.name, self.unalteredType = name, annotation
        extras: tuple[Any, ...] = ()
        kind = annotation
        if typing.get_origin(annotation) is typing.Annotated:
            kind, *extras = typing.get_args(annotation)
        self.kind = kind
        self.validators = [e for e in extras if hasattr(e, "validate")]
        self.is_node = isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)
        if not self.is_node and kind not in (bool, int, float, str):
            raise TypeError(f"this double knows no parameters of type {kind}")
        defaults = [e.value for e in extras if isinstance(e, Default)]
        choices = [e.choices[0] for e in extras if isinstance(e, Choice)]
        empty = None if self.is_node else kind()
        self.default = given if given is not None else (*defaults, *choices, empty)[0]

    def validate(self, value: Any) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"{self.name} is a {self.kind.__name__}, not {value!r}")
            return
        allowed = (int, float) if self.kind is float else self.kind
        if not isinstance(value, allowed) or (self.kind is not bool and isinstance(value, bool)):
            raise TypeError(f"{self.name} is {self.kind.__name__}, not {value!r}")
        for validator in self.validators:
            validator.validate(value)

    def write(self, node: Any, value: Any) -> None:
        self.validate(value)
        if self.is_node:
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        else:
            node.SetParameter(self.name, str(value))

    def read(self, node: Any) -> Any:
        if self.is_node:
            return node.GetNodeReference(self.name)
        if not node.HasParameter(self.name):
            self.write(node, self.default)
        text = node.GetParameter(self.name)
        return text == "True" if self.kind is bool else self.kind(text)


def parameterNodeWrapper(cls: type) -> type:
    """Give a class of annotated members its properties and the wrapper's methods."""
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {
        name: _Parameter(name, hint, getattr(cls, name, None)) for name, hint in hints.items()
    }
    for name, parameter in parameters.items():
        setattr(cls, name, _property(parameter))
    for name, value in vars(_Wrapper).items():
        if name == "__init__" or not name.startswith("__"):
            if name in parameters:
                raise ValueError(f"'{name}' is reserved in a parameter node wrapper")
            setattr(cls, name, value)
    cls.allParameters = parameters
    return cls


def _property(parameter: _Parameter) -> property:
    return property(
        lambda self: parameter.read(self.parameterNode),
        lambda self, value: parameter.write(self.parameterNode, value),
    )


class _Wrapper:
    """The methods of a wrapped class."""

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, tuple[dict[str, Any], int]] = {}
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameterNode.HasParameter(parameter.name):
                parameter.write(parameterNode, parameter.default)

    def getValue(self, name: str) -> Any:
        return self.allParameters[name].read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self.allParameters[name].write(self.parameterNode, value)

    def dataType(self, name: str) -> Any:
        return self.allParameters[name].unalteredType

    def default(self, name: str) -> Any:
        return Default(self.allParameters[name].default)

    def connectGui(self, gui: Any) -> int:
        """Bind every widget whose dynamic property names a parameter."""
        tree = hasattr(gui, "findChildren")
        widgets = gui.findChildren(qt.QWidget) if tree else vars(gui).values()
        found = {w.property(PROPERTY): w for w in widgets if w.property(PROPERTY)}
        return self.connectParametersToGui(found)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        unknown = set(mapping) - set(self.allParameters)
        if unknown:
            raise ValueError(f"there are no parameters {sorted(unknown)}")
        connectors = {name: _Connector(widget) for name, widget in mapping.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.on_change(self._reader(name, connector))
        tag = len(self._guis)
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda c, e: self._show())
        self._guis[tag] = (connectors, observer)
        return tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._guis.pop(tag, ({}, 0))
        for connector in connectors.values():
            connector.on_change(None)
        if observer:
            self.RemoveObserver(observer)

    def _reader(self, name: str, connector: Any) -> Callable[[], None]:
        def read() -> None:
            if not self._updating:
                self.setValue(name, connector.read())

        return read

    def _show(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in list(self._guis.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, before: int) -> int:
        return self.parameterNode.EndModify(before)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


class _Connector:
    """One widget's value."""

    _kinds = (
        ("QCheckBox", "checked", "toggled(bool)"),
        ("QSpinBox", "value", "valueChanged(int)"),
        ("QDoubleSpinBox", "value", "valueChanged(double)"),
        ("QLineEdit", "text", "textChanged(QString)"),
        ("QComboBox", "currentText", "currentTextChanged(QString)"),
    )

    def __init__(self, widget: Any) -> None:
        self._widget, self._slot = widget, None
        for name, value, signal in self._kinds:
            if isinstance(widget, getattr(qt, name)):
                self._value, self._signal = value, signal
                return
        if isinstance(widget, slicer.qMRMLNodeComboBox):
            self._value, self._signal = "", "currentNodeChanged(vtkMRMLNode*)"
            return
        raise TypeError(f"this double binds no {type(widget).__name__} to a parameter")

    def read(self) -> Any:
        return getattr(self._widget, self._value) if self._value else self._widget.currentNode()

    def write(self, value: Any) -> None:
        if not self._value:
            self._widget.setCurrentNode(value)
        elif self.read() != value:
            setattr(self._widget, self._value, value)

    def on_change(self, slot: Callable[[], None] | None) -> None:
        if self._slot is not None:
            self._widget.disconnect(self._signal, self._slot)
        self._slot = slot
        if slot is not None:
            self._widget.connect(self._signal, slot)
