"""The face that PythonQt shows of Qt in Slicer, put on PySide6 where there is no Slicer.

What differs between the two, and is the same here as in Slicer: properties are attributes
(``label.text``, not ``label.text()``); ``name`` is the object's name; signals are connected by
``object.connect("clicked()", slot)``; a plain function gets as many of a signal's arguments as it
takes; setting an attribute that a Qt object lacks raises; file dialogs return the path alone.
Where PythonQt would stay silent (a signal that doesn't exist) this raises.

Errors in slots are kept in ``slot_errors``, for the tests to fail on.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

NOT_PROPERTIES = {"sizeHint", "minimumSizeHint", "objectName", "singleShot"}
"""Virtual functions of C++ that a subclass overrides, and what the interpreter asks for itself."""

slot_errors: list[BaseException] = []
_connect_by_signature = QtCore.QObject.connect
_disconnect_by_signature = QtCore.QObject.disconnect
_connections: dict[tuple[int, str, Any], Callable[..., None]] = {}


def _make_property(name: str, writable: bool, setter: str) -> property:
    def read(self: QtCore.QObject) -> Any:
        return self.property(name)

    def write(self: QtCore.QObject, value: Any) -> None:
        own = getattr(self, setter, None)
        if own is not None:
            own(value)
        elif not self.setProperty(name, value):
            raise ValueError(f"{type(self).__name__}.{name} can't be {value!r}")

    return property(read, write if writable else None)


def inject_properties(cls: type) -> None:
    """Turn the properties that a Qt class declares into attributes of it."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        found = meta.property(index)
        name = found.name()
        if name not in NOT_PROPERTIES:
            setter = "set" + name[0].upper() + name[1:]
            setattr(cls, name, _make_property(name, found.isWritable(), setter))


def _normalised(obj: QtCore.QObject, signature: str) -> str:
    """The signature as PySide6 knows it: signals of doubles carry MRML nodes as objects."""
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    for candidate in (normal, re.sub(r"vtk\w+\*", "PyObject", normal)):
        if obj.metaObject().indexOfSignal(candidate) >= 0:
            return candidate
    raise ValueError(f"{type(obj).__name__} has no signal {signature}")


def _trimmed(slot: Callable[..., Any]) -> Callable[..., None]:
    """Call a slot with as many arguments as it takes, and keep its errors."""
    count: int | None = None
    if not isinstance(slot, functools.partial) and callable(slot):
        try:
            parameters = inspect.signature(slot).parameters.values()
        except (TypeError, ValueError):
            parameters = []
        if not any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            positional = (
                inspect.Parameter.POSITIONAL_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            )
            count = sum(p.kind in positional for p in parameters)

    def call(*args: Any) -> None:
        try:
            slot(*(args if count is None else args[:count]))
        except BaseException as error:
            slot_errors.append(error)
            sys.excepthook(type(error), error, error.__traceback__)

    return call


def _connect(self: QtCore.QObject, *args: Any) -> Any:
    if isinstance(args[0], QtCore.QObject):  # PySide6's own call, for signal.connect(slot)
        return _connect_by_signature(*args)
    signature, slot = args
    known = _normalised(self, signature)
    wrapper = _trimmed(slot)
    _connections[(id(self), known, slot)] = wrapper
    return bool(_connect_by_signature(self, QtCore.SIGNAL(known), wrapper))


def _disconnect(self: QtCore.QObject, *args: Any) -> Any:
    if isinstance(args[0], QtCore.QObject):
        return _disconnect_by_signature(*args)
    signature, slot = args
    known = _normalised(self, signature)
    wrapper = _connections.pop((id(self), known, slot), None)
    if wrapper is None:
        return False
    return bool(_disconnect_by_signature(self, QtCore.SIGNAL(known), wrapper))


def _put_connect(cls: type) -> None:
    """Give a class the connect of PythonQt: PySide6 looks its own up before a class's dictionary.

    Some classes have their own look-up (QProcess for its static ``startDetached``).
    """
    plain = cls.__getattribute__

    def get_attribute(self: QtCore.QObject, name: str) -> Any:
        if name == "connect":
            return functools.partial(_connect, self)
        if name == "disconnect":
            return functools.partial(_disconnect, self)
        return plain(self, name)

    cls.__getattribute__ = get_attribute


def _set_attribute(self: QtCore.QObject, name: str, value: Any) -> None:
    """Refuse attributes that a Qt object lacks, as PythonQt does; Python's subclasses have them.

    Doubles of C++ widgets are Python's subclasses and yet as strict: ``cpp_double`` says so.
    """
    cls = type(self)
    strict = cls.__module__.startswith(("PySide6", "Shiboken"))
    strict = strict or (vars(cls).get("cpp_double", False) and not name.startswith("_"))
    if strict and not hasattr(cls, name):
        raise AttributeError(f"{cls.__name__} has no attribute {name}")
    object.__setattr__(self, name, value)


def _get_name(self: QtCore.QObject) -> str:
    return QtCore.QObject.property(self, "objectName")


def _set_name(self: QtCore.QObject, value: str) -> None:
    self.setObjectName(value)


def _prepare() -> None:
    """Give every class its face, and this module its names."""
    for module in (QtCore, QtGui, QtWidgets):
        for name in dir(module):  # which loads the classes; vars would not have them yet
            value = getattr(module, name)
            if not (isinstance(value, type) and name.startswith("Q")):
                continue
            globals().setdefault(name, value)
            if issubclass(value, QtCore.QObject) and "staticMetaObject" in vars(value):
                inject_properties(value)
    QtCore.QObject.name = property(_get_name, _set_name)
    QtCore.QObject.objectName = property(_get_name, _set_name)
    _put_connect(QtCore.QObject)
    for value in list(globals().values()):
        if isinstance(value, type) and issubclass(value, QtCore.QObject):
            if value.__getattribute__ is not QtCore.QObject.__getattribute__:
                _put_connect(value)
    QtCore.QObject.className = lambda self: self.metaObject().className()
    QtCore.QObject.__setattr__ = _set_attribute


_prepare()
Qt = QtCore.Qt
Signal = QtCore.Signal
Property = QtCore.Property


def __getattr__(name: str) -> Any:
    """The loader of .ui files knows the doubles of the widgets, which are built on this module."""
    if name == "QUiLoader":
        from ui_loader import QUiLoader

        return QUiLoader
    raise AttributeError(f"module 'qt' has no attribute '{name}'")


class QSettings(QtCore.QSettings):
    """Settings of the machine; ``value`` takes a name and a default, as in PythonQt."""

    def value(self, key: str, default: Any = None) -> Any:
        return QtCore.QSettings.value(self, key, default)


class QFileDialog:
    """Dialogs that answer from ``answers`` instead of waiting for a person."""

    answers: list[str] = []

    @classmethod
    def _next(cls) -> str:
        if not cls.answers:
            raise AssertionError("a file dialog was opened and no answer was prepared")
        return cls.answers.pop(0)

    @classmethod
    def getOpenFileName(cls, parent: Any, title: str, folder: str, filters: str) -> str:
        return cls._next()

    @classmethod
    def getSaveFileName(cls, parent: Any, title: str, folder: str, filters: str) -> str:
        return cls._next()

    @classmethod
    def getExistingDirectory(cls, parent: Any, title: str, folder: str) -> str:
        return cls._next()
