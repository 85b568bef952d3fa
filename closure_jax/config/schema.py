"""The schema: a section of the configuration is the fields of the dataclasses that it stands for.

A *piece* is a class, found by its name in the table of its axis (a transport, a latent, a flow, ...). Its fields are fields of
the section, their defaults the published values, their types what `--config.SECTION.FIELD=` accepts; a rule on a field stands in
the class, in `__post_init__`. A piece of a fork, which is in no table, is named `experiment:Class` where the experiment's own
file defines it, and `module:Class` where an installed module does: a new interpreter finds it again by that name.
"""

import dataclasses
import functools
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import ml_collections

from closure_jax.config import names
from closure_jax.errors import UserError

OWN_FILE = "experiment"
"""What stands before the colon in the name of a piece that the experiment's own file defines."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A field that names a class, whose own fields join the section.

    Attributes:
      selector: the field, such as `kind`.
      table: class by name; or 'module:TABLE' for classes of a room above the configuration, imported when they are needed.
      default: name of the published class.
      given: fields that the builder of objects sets, which are no configuration.
      interface: whose public methods a piece of somebody's own has to have; or 'module:Class' as for the table.
    """

    selector: str
    table: Mapping[str, type] | str
    default: str
    given: frozenset[str] = frozenset()
    interface: type | str = object

    def classes(self) -> Mapping[str, type]:
        """Class by name."""
        return _imported(self.table)

    def check(self, field: str, name: str, piece: Any) -> None:
        """Raises UserError where the piece of a name lacks what its axis needs."""
        like = _imported(self.interface)
        needed = [method for cls in like.__mro__ for method, what in vars(cls).items() if inspect.isfunction(what)]
        missing = [method for method in dict.fromkeys(needed) if method[0] != "_" and not hasattr(piece, method)]
        if missing or not isinstance(piece, type):
            lacks = f"has no {', '.join(missing)}" if missing else "is no class"
            raise UserError(
                f"--config.{field}={name} {lacks}: expected a class like {like.__name__} in {like.__module__}, or one of"
                f" {', '.join(sorted(self.classes()))}"
            )


def _imported(what: Any) -> Any:
    """What 'module:NAME' means; anything else is itself."""
    if not isinstance(what, str):
        return what
    module, _, name = what.partition(":")
    return getattr(importlib.import_module(module), name)


@dataclasses.dataclass(frozen=True)
class Section:
    """What a section of the configuration is made of.

    Attributes:
      choices: its fields that name classes.
      settings: dataclass of the fields that it has whatever is chosen.
    """

    choices: tuple[Choice, ...] = ()
    settings: type | None = None


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: its type, its default (`dataclasses.MISSING` where there is none) and what the class's docstring says of it."""

    type: Any
    default: Any
    text: str


# --- fields of a class -----------------------------------------------------------------------------------------------

_FLAX = frozenset({"parent", "name"})


@functools.cache
def fields_of(cls: type, given: frozenset[str] = frozenset()) -> Mapping[str, Field]:
    """The fields of a dataclass or Flax module that are configuration, by name.

    Raises:
      UserError: a field has a type that no text can give.
    """
    if not dataclasses.is_dataclass(cls):
        raise UserError(
            f"piece {cls.__name__} is no dataclass: expected a class with @dataclasses.dataclass(frozen=True)"
        )
    hints, texts = typing.get_type_hints(cls), _attribute_texts(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if field.name in given | _FLAX or "table" in field.metadata or field.metadata.get("given"):
            continue
        default = field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        kind = hints[field.name]
        if kind not in _WANTED and _options(kind) is None:
            raise UserError(
                f"field {field.name} of piece {cls.__name__} has type {kind}: expected bool, int, float, str, Literal,"
                " tuple[int, ...], tuple[float, ...] or tuple[str, ...]"
            )
        found[field.name] = Field(kind, default, texts.get(field.name, ""))
    return types.MappingProxyType(found)


def parts_of(cls: type) -> dict[str, Choice]:
    """Fields of a piece that are pieces themselves, by name: each has a section of that name.

    Such a field has the metadata {"table": classes by name, "default": name}, "sets": names of the part's fields that the piece
    sets itself, and "interface".
    """
    if not dataclasses.is_dataclass(cls):
        return {}
    return {
        field.name: Choice(
            "kind",
            field.metadata["table"],
            field.metadata["default"],
            frozenset(field.metadata.get("sets", ())),
            field.metadata.get("interface", object),
        )
        for field in dataclasses.fields(cls)
        if "table" in field.metadata
    }


def _options(kind: Any) -> tuple[str, ...] | None:
    """The texts of a Literal, None for another type."""
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else None


def _attribute_texts(cls: type) -> dict[str, str]:
    """What the docstrings of a class and its bases say of each attribute, under `Attributes:`; names may share a line."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("Attributes:")
        listed = listed.split("\n\n")[0]
        entries = re.findall(r"^  (\w[\w, ]*): (.*(?:\n {4,}.*)*)", listed, flags=re.M)
        texts |= {name.strip(): " ".join(text.split()) for line, text in entries for name in line.split(",")}
    return texts


# --- values ----------------------------------------------------------------------------------------------------------

_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple[int, ...]: "whole numbers like 1,10,50",
    tuple[float, ...]: "numbers like 0.5,2",
    tuple[str, ...]: "texts like a,b",
}


def wanted(kind: Any) -> str:
    """What a field of a type accepts, in words."""
    options = _options(kind)
    return _WANTED[kind] if options is None else "one of " + ", ".join(options)


def parse(field: str, text: str, kind: Any) -> Any:
    """The value that a text stands for.

    Raises:
      UserError: it stands for none of the type.
    """
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if kind is int:
            return _whole(text)
        if kind is float:
            return float(text)
        if typing.get_origin(kind) is tuple:
            entries = [entry.strip() for entry in text.strip("()[] ").split(",") if entry.strip()]
            read = {int: _whole, float: float}.get(typing.get_args(kind)[0], str)
            return tuple(read(entry) for entry in entries)
    except (ValueError, KeyError, OverflowError):
        raise UserError(f"--config.{field}={text}: expected {wanted(kind)}") from None
    return text


def _whole(text: str) -> int:
    value = float(text)
    if value != int(value):
        raise ValueError(text)
    return int(value)


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number that a float can hold, if not exactly."""
    return type(value) is int and abs(value) <= sys.float_info.max


def typed(field: str, value: Any, kind: Any) -> Any:
    """`value` as a field of a type holds it: a whole number may stand for a float, a list for a tuple.

    Raises:
      UserError: it has another type, or is none of the options.
    """
    options = _options(kind)
    if options is not None:
        if value not in options:
            hint = names.nearest(str(value), options)
            raise UserError(f"--config.{field}={value}: expected one of {', '.join(options)}{hint}")
        return value
    if kind is float and _is_whole(value):
        return float(value)
    if typing.get_origin(kind) is tuple and isinstance(value, tuple | list):
        of = typing.get_args(kind)[0]
        entries = tuple(float(one) if of is float and _is_whole(one) else one for one in value)
        if all(type(one) is of for one in entries):
            return entries
    elif type(value) is kind:
        return value
    raise UserError(f"--config.{field}={value!r} is a {type(value).__name__}: expected {wanted(kind)}")


# --- names of pieces -------------------------------------------------------------------------------------------------


def name_of(piece: Any, choice: Choice | None, own: types.ModuleType | None) -> str:
    """The name by which the configuration refers to a class or function: its entry in the table, else where it is defined.

    Args:
      piece: the class or function.
      choice: its axis, if it has a table.
      own: the experiment's own module, if there is one.
    """
    for name, cls in choice.classes().items() if choice is not None else ():
        if cls is piece:
            return name
    where = OWN_FILE if own is not None and piece.__module__ == own.__name__ else piece.__module__
    return f"{where}:{piece.__qualname__}"


def find(field: str, name: str, choice: Choice | None, own: types.ModuleType | None) -> Any:
    """The class of a name, in the table of its axis, in the experiment's own file or in a module; without an axis a function.

    Raises:
      UserError: there is none; the message says what is missing.
    """
    table: Mapping[str, Any] = {} if choice is None else choice.classes()
    if name in table:
        return table[name]
    where, colon, attribute = name.partition(":")
    if not colon:
        raise UserError(
            f"--config.{field}={name}: expected one of {', '.join(sorted(table))}{names.nearest(name, table)},"
            " or module:Class for a piece of your own"
        )
    if where == OWN_FILE and own is None:
        raise UserError(
            f"--config.{field}={name} stands in the experiment's own file, which is missing: expected the experiment.py that"
            " the run keeps in its work directory"
        )
    try:
        found: Any = own if where == OWN_FILE else importlib.import_module(where)
    except (Exception, SystemExit) as error:  # the module may hold anything
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"--config.{field}={name}: module '{where}' can't be imported ({reason}): install it, or mend it"
        ) from None
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise UserError(
            f"--config.{field}={name}: there is no {attribute} in '{where}': expected it as when it was trained"
        ) from None
    if not callable(found):
        raise UserError(f"--config.{field}={name}: expected a class or a function, found a {type(found).__name__}")
    if choice is not None:
        choice.check(field, name, found)
    return found


# --- sections --------------------------------------------------------------------------------------------------------


def section_fields(
    section: Section, values: Mapping[str, Any], own: types.ModuleType | None, name: str
) -> dict[str, Field]:
    """All fields of a section, selectors first, given what its selectors name."""
    found: dict[str, Field] = {}
    for choice in section.choices:
        chosen = values.get(choice.selector, choice.default)
        cls = find(f"{name}.{choice.selector}", chosen, choice, own)
        for new, field in {
            choice.selector: Field(str, choice.default, "names a class: one of " + ", ".join(choice.classes())),
            **fields_of(cls, choice.given),
        }.items():
            if new in found:
                raise UserError(
                    f"piece {cls.__name__}: the section '{name}' has a field {new} already; give it another name"
                )
            found[new] = field
    if section.settings is not None:
        for new, field in fields_of(section.settings).items():
            if new in found:
                raise UserError(
                    f"section '{name}' has a field {new} of its own: the piece needs another name for its field"
                )
            found[new] = field
    return found


def leaves(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """All fields as (dotted name, value), in order."""
    for name in config:
        value = config[name]
        if isinstance(value, ml_collections.ConfigDict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
