"""The experiment: the objects that a configuration stands for, made once, at the top, and passed down."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from closure_jax.closure import Scaling, StochasticClosure
from closure_jax.config import rules, schema, sections, settings
from closure_jax.config.optimisers import Schedule
from closure_jax.coupling.base import Coupling
from closure_jax.data.dataset import FIELDS
from closure_jax.data.generate import Simulation
from closure_jax.errors import UserError
from closure_jax.latent.spaces import Latent
from closure_jax.models.autoencoders import Autoencoder
from closure_jax.problems.base import Problem
from closure_jax.transport.base import Transport

ConfigDict = ml_collections.ConfigDict

_LARGEST = 1e12
"""A number beyond it is a slip: in no units of this field does a quantity come near."""


Numbers = TypeVar("Numbers", bound=settings.Optimisation, covariant=True)
"""The settings of a section that is trained."""


@dataclasses.dataclass(frozen=True)
class Trained(Generic[Numbers]):
    """How one network is trained: the numbers of its section, and the learning-rate schedule."""

    settings: Numbers
    schedule: Schedule


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a run is made of.

    Attributes:
      name, preset: of the experiment.
      seed: of training and evaluation.
      problem: what is closed, with its solver and law.
      data: which snapshots of it.
      autoencoder, latent: the latent space.
      network: Flax module; see `models.velocity_field` for its interface.
      transport: from noise to a sample.
      program: how all of it is trained; see `training.programs`.
      coupling: when the solver draws, and what it does between.
      autoencoder_training, transport_training: their schedules.
      sampler, training, evaluation: settings.
      measures: measures of one's own, by name.
      config: the configuration that all of this was made from.
    """

    name: str
    preset: str
    seed: int
    problem: Problem
    data: settings.Data
    autoencoder: Autoencoder
    latent: Latent
    network: nn.Module
    transport: Transport
    program: Any
    coupling: Coupling
    autoencoder_training: Trained[settings.AutoencoderOptimisation]
    transport_training: Trained[settings.TransportOptimisation]
    sampler: settings.Sampler
    training: settings.Training
    evaluation: settings.Evaluation
    measures: Mapping[str, Callable[..., float]]
    config: ConfigDict

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(r, r, channels)."""
        return self.autoencoder.latent_shape(self.data.resolution)

    def autoencoder_modules(self) -> tuple[nn.Module, nn.Module]:
        """(encoder, decoder); one pair of parameters for vorticity and one for the closure."""
        return self.autoencoder.modules(self.data.resolution)

    def simulation(self) -> Simulation:
        """What makes the data file."""
        d = self.data
        return Simulation(
            problem=self.problem,
            seed=d.seed,
            trajectories=d.trajectories,
            test_trajectories=d.test_trajectories,
            burn_in=d.burn_in,
            end=d.end,
            every=d.snapshot_every,
            chunk=d.chunk,
        )

    # --- the closure -------------------------------------------------------------------------------------------------

    def init_autoencoder(self, key: jax.Array) -> dict[str, Any]:
        """Initial {"encoder", "decoder"} parameters of one field."""
        encoder, decoder = self.autoencoder_modules()
        n = self.data.resolution
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": _initial(encoder, encoder_key, ((1, n, n),)),
            "decoder": _initial(decoder, decoder_key, ((1, *self.latent_shape),)),
        }

    def init_network(self, key: jax.Array) -> Any:
        """Initial parameters of the transport network."""
        latent = (1, *self.latent_shape)
        return _initial(self.network, key, (latent, latent, *[(1,)] * self.transport.times))

    def template(self) -> dict[str, Any]:
        """The structure and shapes of what `assemble` takes, without training: zeros."""

        def shapes() -> dict[str, Any]:
            params = {field: self.init_autoencoder(jax.random.key(0)) for field in FIELDS}
            return params | {"network": self.init_network(jax.random.key(0))}

        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), jax.eval_shape(shapes))
        zero = np.zeros((), np.float32)
        scalings = (*FIELDS, *(f"latent_{field}" for field in FIELDS))
        return {"params": params, "scalings": {name: {"mean": zero, "std": zero} for name in scalings}}

    def assemble(self, leaves: dict[str, Any]) -> StochasticClosure:
        """A closure from {"params", "scalings"} (scalings as {name: {"mean", "std"}})."""
        encoder, decoder = self.autoencoder_modules()
        return StochasticClosure(
            params=leaves["params"],
            scalings={name: Scaling(**numbers) for name, numbers in leaves["scalings"].items()},
            encoder=encoder,
            decoder=decoder,
            network=self.network,
            transport=self.transport,
            steps=self.sampler.steps,
            resolution=self.data.resolution,
        )


@functools.partial(jax.jit, static_argnums=(0, 2))  # op by op, an initialisation compiles a hundred programs
def _initial(module: Any, key: jax.Array, shapes: tuple[tuple[int, ...], ...]) -> Any:
    """Initial parameters of a Flax module that takes arrays of these shapes."""
    return module.init(key, *(jnp.zeros(shape) for shape in shapes))


# --- configuration into objects --------------------------------------------------------------------------------------


def build(config: ConfigDict) -> Experiment:
    """The objects that a configuration stands for.

    Raises:
      UserError: the first impossible value, in one line.
    """
    known = sections.known_fields(config)
    given = dict(schema.leaves(config))
    for field, spec in known.items():
        if field not in given:
            raise UserError(f"--config.{field} is missing from the experiment: expected {schema.wanted(spec.type)}")
        schema.typed(field, given[field], spec.type)
    for field in given:
        if field not in known:
            raise UserError(
                f"--config.{field}: no such field{sections.names.nearest(field, known)}; expected a known one"
            )
    if not 0 <= config.seed < 2**31:
        raise UserError(f"--config.seed={config.seed}: expected a whole number from 0 to 2147483647")
    made = _Builder(config)
    data = made.settings("data")
    autoencoder, transport = made.piece("autoencoder"), made.piece("transport", "process")
    with _named("autoencoder"):
        channels = autoencoder.latent_shape(data.resolution)[2]
    problem = made.piece("problem", **made.parts(), stored_resolution=data.resolution)
    experiment = Experiment(
        name=config.experiment,
        preset=config.preset,
        seed=config.seed,
        problem=problem,
        data=data,
        autoencoder=autoencoder,
        latent=made.piece("latent"),
        network=made.piece("network", channels=channels, times=transport.times, problem=problem),
        transport=transport,
        program=made.piece("program"),
        coupling=made.piece("coupling"),
        autoencoder_training=made.trained("autoencoder"),
        transport_training=made.trained("transport"),
        sampler=made.settings("sampler"),
        training=made.settings("training"),
        evaluation=made.settings("evaluation"),
        measures=sections.measures(config),
        config=config,
    )
    rules.check(experiment)
    if not data.path:
        with _named("problem"):
            experiment.simulation().system()
    return experiment


class _named:
    """Puts `--config.SECTION.` before what a piece says of its field."""

    def __init__(self, section: str):
        self._section = section

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, UserError) and not str(error).startswith("--config."):
            raise UserError(f"--config.{self._section}.{error}") from None


class _Builder:
    """Makes the objects of each section."""

    def __init__(self, config: ConfigDict):
        self._config, self._own = config, sections.own_module(config)
        self._sections = sections.sections_of(config)

    def _class(self, section: str, selector: str) -> tuple[type, schema.Choice]:
        (choice,) = (one for one in self._sections[section].choices if one.selector == selector)
        name = self._config[section][selector]
        return schema.find(f"{section}.{selector}", name, choice, self._own), choice

    def _make(self, section: str, cls: type, given: frozenset[str], extra: Mapping[str, Any]) -> Any:
        values = {name: self._config[section][name] for name in schema.fields_of(cls, given)}
        for name, value in values.items():
            numbers = value if isinstance(value, tuple) else (value,)
            if any(isinstance(number, float) and not np.isfinite(number) for number in numbers):
                raise UserError(f"--config.{section}.{name}={value} is not finite: expected a finite number")
            if any(isinstance(number, int | float) and abs(number) > _LARGEST for number in numbers):
                raise UserError(f"--config.{section}.{name}={value}: expected a number up to {_LARGEST:g} in size")
        with _named(section):
            return cls(**values, **extra)

    def piece(self, section: str, selector: str = "kind", **extra: Any) -> Any:
        """The object of a section's piece; `extra` are the fields that the configuration doesn't hold."""
        cls, choice = self._class(section, selector)
        wanted = {field.name for field in dataclasses.fields(cls)}
        return self._make(section, cls, choice.given, {name: value for name, value in extra.items() if name in wanted})

    def settings(self, section: str) -> Any:
        """The object of a section's settings."""
        cls = self._sections[section].settings
        assert cls is not None, f"section {section} has no settings"
        return self._make(section, cls, frozenset(), {})

    def trained(self, section: str) -> Trained[Any]:
        """How the network of a section is trained."""
        return Trained(self.settings(section), self.piece(section, "schedule"))

    def parts(self) -> dict[str, Any]:
        """The problem's parts, by name."""
        problem, _ = self._class("problem", "kind")
        return {name: self.piece(name) for name in schema.parts_of(problem)}
