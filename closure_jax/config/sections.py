"""The sections of the configuration: which tables of pieces and which settings each is made of, and how a piece is chosen."""

import contextlib
import inspect
import pathlib
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from closure_jax.config import names, schema, settings
from closure_jax.config.optimisers import SCHEDULES, Schedule
from closure_jax.config.schema import Choice, Field, Section
from closure_jax.coupling import COUPLINGS
from closure_jax.coupling.base import Coupling
from closure_jax.errors import UserError
from closure_jax.latent.spaces import LATENTS, Latent
from closure_jax.models.autoencoders import AUTOENCODERS, Autoencoder
from closure_jax.models.networks import NETWORKS, Network
from closure_jax.problems import PROBLEMS
from closure_jax.problems.base import Problem
from closure_jax.problems.oracle import Oracle
from closure_jax.transport import TRANSPORTS
from closure_jax.transport.base import Transport

ConfigDict = ml_collections.ConfigDict

_BUILT = frozenset({"channels", "times", "problem"})
"""Fields of a network that are set by the program that builds it, where it has them."""

_PROGRAMS = "closure_jax.training.programs"

_SCHEDULE = Choice("schedule", SCHEDULES, "step", interface=Schedule)

SECTIONS: dict[str, Section] = {
    "problem": Section((Choice("kind", PROBLEMS, "kolmogorov", frozenset({"stored_resolution"}), Problem),)),
    "data": Section(settings=settings.Data),
    "autoencoder": Section(
        (Choice("kind", AUTOENCODERS, "published", interface=Autoencoder), _SCHEDULE), settings.AutoencoderOptimisation
    ),
    "latent": Section((Choice("kind", LATENTS, "ga", interface=Latent),)),
    "network": Section((Choice("kind", NETWORKS | {"oracle": Oracle}, "published", _BUILT, Network),)),
    "transport": Section(
        (Choice("process", TRANSPORTS, "flow_matching", interface=Transport), _SCHEDULE), settings.TransportOptimisation
    ),
    "program": Section((Choice("kind", f"{_PROGRAMS}:PROGRAMS", "two_phase", interface=f"{_PROGRAMS}:Program"),)),
    "coupling": Section((Choice("kind", COUPLINGS, "held", interface=Coupling),)),
    "sampler": Section(settings=settings.Sampler),
    "training": Section(settings=settings.Training),
    "evaluation": Section(settings=settings.Evaluation),
}
"""Every section that a configuration has, in order; a part of the problem (its flow) has a section of its own, behind it."""

HEAD = {
    "experiment": Field(str, "", "name of the experiment's file"),
    "experiment_file": Field(str, "", "the file itself, where pieces stand in it"),
    "preset": Field(str, "", "paper, medium, small or tiny"),
    "seed": Field(int, 0, "of training and evaluation"),
}
"""Fields outside sections."""


# --- the experiment's own file ---------------------------------------------------------------------------------------

_OWN = "closure_jax_experiment_"
_modules: dict[str, types.ModuleType] = {}


def register(module: types.ModuleType) -> None:
    """Lets pieces that an experiment's file defines be found by name, also while the file is being executed."""
    _modules[str(module.__file__)] = module
    sys.modules[module.__name__] = module


def own_module(config: ConfigDict) -> types.ModuleType | None:
    """The loaded file of the experiment; None where it has no pieces of its own, or is not there."""
    return _modules.get(config.experiment_file)


def own_source(config: ConfigDict) -> str | None:
    """The text of the experiment's file, None where it has no pieces of its own.

    Raises:
      UserError: it can't be read.
    """
    if not config.experiment_file:
        return None
    try:
        return pathlib.Path(config.experiment_file).read_text()
    except OSError as error:
        raise UserError(
            f"'{config.experiment_file}' can't be read ({error.strerror}): expected the experiment's file, whose pieces are used"
        ) from None


def module_name(stem: str) -> str:
    """Name under which an experiment's file is loaded."""
    return _OWN + stem


# --- fields ----------------------------------------------------------------------------------------------------------


def _values(config: ConfigDict, name: str) -> Mapping[str, Any]:
    """What a section holds; empty where it is missing."""
    values = config.get(name, {})
    if not isinstance(values, ConfigDict | dict):
        raise UserError(f"--config.{name}={values!r}: expected a section of fields")
    return dict(values.items())


def sections_of(config: ConfigDict) -> dict[str, Section]:
    """The sections that this configuration has: those of the table, and those of the chosen problem's parts."""
    found = {}
    for name, section in SECTIONS.items():
        found[name] = section
        for choice in section.choices:
            chosen = _values(config, name).get(choice.selector, choice.default)
            cls = schema.find(f"{name}.{choice.selector}", chosen, choice, own_module(config))
            found |= {part: Section((inner,)) for part, inner in schema.parts_of(cls).items()}
    return found


def known_fields(config: ConfigDict) -> dict[str, Field]:
    """All fields that this configuration has, by dotted name."""
    found = dict(HEAD)
    for name, section in sections_of(config).items():
        fields = schema.section_fields(section, _values(config, name), own_module(config), name)
        found |= {f"{name}.{field}": spec for field, spec in fields.items()}
    return found


def selectors(config: ConfigDict) -> dict[str, tuple[str, Choice]]:
    """(section, choice) by the dotted name of each field that names a class."""
    return {
        f"{name}.{choice.selector}": (name, choice)
        for name, section in sections_of(config).items()
        for choice in section.choices
    }


def published() -> ConfigDict:
    """Every field at the default of its class."""
    config = ConfigDict({name: spec.default for name, spec in HEAD.items()})
    for name, section in sections_of(config).items():
        fields = schema.section_fields(section, {}, None, name)
        config[name] = ConfigDict({field: _default(f"{name}.{field}", spec) for field, spec in fields.items()})
    config.lock()
    return config


def _default(field: str, spec: Field) -> Any:
    if spec.default is schema.dataclasses.MISSING:
        raise UserError(f"field {field} has no default: expected one, which is its published value")
    return spec.default


# --- choosing pieces -------------------------------------------------------------------------------------------------


def use(config: ConfigDict, section: str, piece: str | type, **values: Any) -> None:
    """Chooses a piece for a section, in place: its fields join the section, those of the one before leave it.

    Fields that both have keep their values; the others take the piece's defaults.

    Args:
      config: an experiment's configuration.
      section: such as 'network'; 'autoencoder.schedule' and 'transport.schedule' for a learning-rate schedule.
      piece: a name in the axis's table, or a class: of the experiment's own file, or of an installed module.
      **values: fields of the section to set.
    Raises:
      UserError: no such section, piece or field, or a value of another type.
    """
    section, _, selector = section.partition(".")
    known = sections_of(config)
    if section not in known or not known[section].choices:
        chosen = [name for name, one in known.items() if one.choices]
        raise UserError(f"section '{section}' chooses no piece: expected one of {', '.join(chosen)}")
    choices = {choice.selector: choice for choice in known[section].choices}
    choice = choices.get(selector, known[section].choices[0])
    own = None if isinstance(piece, str) else _own_of(piece)
    name = piece if isinstance(piece, str) else schema.name_of(piece, choice, own)
    with config.unlocked():
        if own is not None and name.startswith(schema.OWN_FILE + ":"):
            config.experiment_file = str(own.__file__)
        before = dict(config.get(section, {}))
        _rebuild(config, section, known[section], before | {choice.selector: name})
        for part, inner in schema.parts_of(
            schema.find(f"{section}.{choice.selector}", name, choice, own_module(config))
        ).items():
            if part not in config:
                _rebuild(config, part, Section((inner,)), {})
        for part in set(known) - set(sections_of(config)):
            del config[part]
        assign(config, {f"{section}.{field}": value for field, value in values.items()})


def _own_of(piece: Any) -> types.ModuleType | None:
    module = sys.modules.get(piece.__module__)
    return module if module is not None and module.__name__.startswith(_OWN) else None


def _rebuild(config: ConfigDict, name: str, section: Section, values: Mapping[str, Any]) -> None:
    fields = schema.section_fields(section, values, own_module(config), name)
    config[name] = ConfigDict(
        {field: values.get(field, _default(f"{name}.{field}", spec)) for field, spec in fields.items()}
    )


def assign(config: ConfigDict, values: Mapping[str, Any]) -> None:
    """Sets fields by dotted name, in place.

    Raises:
      UserError: no such field, or a value of another type.
    """
    known = known_fields(config)
    for field, value in values.items():
        if field not in known:
            raise UserError(
                f"--config.{field}: no such field{names.nearest(field, known)}; --dry_run prints all fields"
            )
        section, _, leaf = field.rpartition(".")
        target = config[section] if section else config
        target[leaf] = schema.typed(field, value, known[field].type)


def add_measure(config: ConfigDict, function: Callable[..., float]) -> None:
    """Enters a measure of one's own, (samples (states, E, n, n), truth (states, n, n)) -> number: it appears in results.json and
    in the report under the function's name."""
    own = _own_of(function)
    with config.unlocked():
        if own is not None:
            config.experiment_file = str(own.__file__)
        config.evaluation.measures = (*config.evaluation.measures, schema.name_of(function, None, own))


def measures(config: ConfigDict) -> dict[str, Callable[..., float]]:
    """The measures that `add_measure` entered, by the names of their functions."""
    found = {}
    for name in config.evaluation.measures:
        function = schema.find("evaluation.measures", name, None, own_module(config))
        with contextlib.suppress(ValueError):  # some that are written in C do not say what they take
            try:
                inspect.signature(function).bind("samples", "truth")
            except TypeError as error:
                raise UserError(
                    f"--config.evaluation.measures={name}: expected a function of samples and truth ({error})"
                ) from None
        found[getattr(function, "__name__", name)] = function
    return found
