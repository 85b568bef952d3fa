"""The rows of `./launch.sh bench`: programs at the published sizes and at those of fm_ga:small, on random parameters.

`published` is fm_ga:paper, in physical space fm_physical:paper and for its 50 steps dm_physical:paper; `compact` is fm_ga:small;
with `one_call` it is cs_ga in their place. `les` is les_cs_physical:small, whose DNS takes four steps in the time of one of
the closed solver.
A call works on 16 float32 fields unless the row says otherwise. Parameters are random, since time does not depend on them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from closure_jax import config as config_lib
from closure_jax.closure import StochasticClosure
from closure_jax.config import Experiment, Trained
from closure_jax.config.optimisers import optimiser
from closure_jax.config.settings import Optimisation
from closure_jax.coupling import Coupling, Extrapolated, Held, Matern, Scaled
from closure_jax.coupling.advance import by_period
from closure_jax.coupling.draw import FixedSteps
from closure_jax.parallel import devices
from closure_jax.physics import spectral
from closure_jax.training import steps
from closure_jax.training.state import TrainState

FIELDS = 16
_DNS_STEPS = 20  # in one call, so that starting a call does not count
_HOLD = 5
_GRADIENT_STEPS = 100


@dataclasses.dataclass(frozen=True)
class Case:
    """What one row measures.

    Attributes:
      function: pure; a call of it is timed. On several devices each calls it on its part and `devices.mean` is over all.
      arguments: of the call.
      split: by argument, whether its first axis is split over devices; the others are the same on each.
      batch: fields, or members, of a call.
      steps: solver steps in a call; the row's figures are of one.
      carries: the first output takes the place of the first argument, whose buffers are reused, as a loop would do it.
      unit: the program of one step, on which operations and bytes are counted; None: those of the call, over `steps`.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    split: tuple[bool, ...]
    batch: int = FIELDS
    steps: int = 1
    carries: bool = False
    unit: Callable[..., Any] | None = None


# --- models on random parameters -------------------------------------------------------------------------------------


@functools.cache
def _experiment(name: str, preset: str) -> Experiment:
    (file,) = config_lib.experiments([name])
    return config_lib.build(config_lib.load(f"{file}:{preset}"))


@functools.cache
def _model(name: str, preset: str) -> StochasticClosure:
    experiment = _experiment(name, preset)
    leaves = experiment.template()
    unit = {"mean": np.zeros((), np.float32), "std": np.ones((), np.float32)}
    scalings = {scaling: dict(unit) for scaling in leaves["scalings"]}
    return experiment.assemble({"params": _random_parameters(leaves["params"]), "scalings": scalings})


def _random_parameters(template: Any) -> Any:
    """Normal numbers of a size that keeps activations near 1."""
    generator = np.random.default_rng(0)

    def draw(leaf: np.ndarray) -> np.ndarray:
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        return (generator.standard_normal(leaf.shape) / np.sqrt(fan_in)).astype(leaf.dtype)

    return jax.tree.map(draw, template)


Made = tuple[Experiment, StochasticClosure]


def _made(name: str, preset: str) -> Callable[[], Made]:
    return lambda: (_experiment(name, preset), _model(name, preset))


_published, _compact = _made("fm_ga", "paper"), _made("fm_ga", "small")
_one_call, _compact_one_call = _made("cs_ga", "paper"), _made("cs_ga", "small")
_physical, _physical_diffusion = _made("fm_physical", "paper"), _made("dm_physical", "paper")
_les = _made("les_cs_physical", "small")


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def _keys(count: int = FIELDS) -> jax.Array:
    return jax.random.split(jax.random.key(2), count)


# --- rows ------------------------------------------------------------------------------------------------------------


def _dns_step(resolution: int) -> Case:
    """The stochastic solver with its exact closure."""
    problem: Any = _experiment("fm_ga", "paper").problem
    system = dataclasses.replace(problem, resolution=resolution).reference()

    def run(vorticity_hat, keys, count=_DNS_STEPS):
        return system.advance(keys, vorticity_hat, 0, count), ()

    arguments = (jax.jit(jax.vmap(system.field.sample_hat))(_keys()), _keys())
    return Case(run, arguments, (True, True), steps=_DNS_STEPS, carries=True, unit=functools.partial(run, count=1))


def _encode(made: Callable[[], Made]) -> Case:
    experiment, model = made()
    n = experiment.data.resolution
    return Case(lambda model, vorticity: model.encode(vorticity), (model, _normal(FIELDS, n, n)), (False, True))


def _decode(made: Callable[[], Made]) -> Case:
    experiment, model = made()
    latent = _normal(FIELDS, *experiment.latent_shape)
    return Case(lambda model, latent: model.decode(latent), (model, latent), (False, True))


def _network(made: Callable[[], Made]) -> Case:
    """One call of the transport network, condition branch included."""
    experiment, model = made()
    state, condition = _normal(2, FIELDS, *experiment.latent_shape)
    tau = np.linspace(0, 1, FIELDS, dtype=np.float32)
    return Case(model.network.apply, (model.params["network"], state, condition, tau), (False, True, True, True))


def _sample(made: Callable[[], Made], sampler_steps: int) -> Case:
    """Encode, `sampler_steps` network calls, decode."""
    experiment, model = made()
    n = experiment.data.resolution
    return Case(
        lambda model, keys, vorticity: model.sample(keys, vorticity, sampler_steps),
        (model, _keys(), _normal(FIELDS, n, n)),
        (False, True, True),
    )


def _coupled(made: Callable[[], Made], sampler_steps: int, coupling: Coupling | None = None) -> Case:
    """The solver with a sample each `_HOLD` steps, held between by a rule; the published one if none is given."""
    run, arguments = _coupled_run(made, sampler_steps, coupling)
    return Case(lambda model, keys, state: run(model, keys, state, _HOLD), arguments, (False, True, True), steps=_HOLD)


def _coupled_run(
    made: Callable[[], Made], sampler_steps: int, coupling: Coupling | None = None, remat: bool = False
) -> tuple[Callable[..., jax.Array], tuple[Any, ...]]:
    """run(model, keys, vorticity_hat, steps) -> vorticity_hat, and its first three arguments."""
    experiment, model = made()
    problem: Any = experiment.problem
    coupling = coupling or Held(_HOLD, white_noise=experiment.config.coupling.get("white_noise", 0.0))
    solver = problem.solver()

    def run(model, keys, vorticity_hat, count):
        closed = solver.closed(FixedSteps(model, sampler_steps), coupling, remat)
        begun = closed.begin(keys[:, None], spectral.to_physical(vorticity_hat)[:, None])
        state = begun._replace(vorticity_hat=vorticity_hat[:, None])
        return closed.advance(keys[:, None], state, 0, count).vorticity_hat[:, 0]

    return run, (model, _keys(), _start(problem))


def _start(problem: Any) -> jax.Array:
    """Vorticity on the closed solver's grid, (FIELDS, n, n // 2 + 1)."""
    if hasattr(problem.truth(), "field"):  # Kolmogorov flow starts at rest
        return jax.jit(jax.vmap(problem.truth().field.sample_hat))(_keys())
    system = problem.reference()
    return spectral.to_fourier(system.vorticity(jax.jit(system.initial)(_keys())))


def _les_dns_step() -> Case:
    """The DNS of a large-eddy simulation."""
    problem: Any = _les()[0].problem
    system = problem.reference()

    def run(vorticity_hat, keys):
        return system.advance(keys, vorticity_hat, 0, 1), ()

    return Case(run, (jax.jit(system.initial)(_keys()), _keys()), (True, True), carries=True)


def _les_step() -> Case:
    """The coarse solver alone."""
    problem: Any = _les()[0].problem
    step = problem.solver().step

    def run(vorticity_hat, count=_DNS_STEPS):
        return by_period(lambda now, _: step(now, jnp.zeros_like(now)), vorticity_hat, 0, count, 1), ()

    once = functools.partial(run, count=1)
    return Case(run, (_start(problem),), (True,), steps=_DNS_STEPS, carries=True, unit=once)


def _rollout_gradient() -> Case:
    """Gradient, by the parameters of fm_ga:small, of the mean squared vorticity after `_GRADIENT_STEPS` coupled steps."""
    run, (model, keys, state) = _coupled_run(_compact, 1, remat=True)

    def loss(params, model, keys, state):
        end = run(model.replace(params=params), keys, state, _GRADIENT_STEPS)
        return jnp.mean(jnp.fft.irfft2(end) ** 2)

    def gradient(*arguments):
        return devices.mean(jax.grad(loss)(*arguments))

    return Case(gradient, (model.params, model.replace(params={}), keys, state), (False, False, True, True))


def _training(training: Trained[Optimisation], loss: steps.Loss, params: Any, batch: dict) -> Case:
    """One step of training: gradient, optimiser, moving average."""
    adam = optimiser(training.settings, training.schedule)
    step = steps.make_train_step(loss, adam, training.settings.ema_decay)
    state = jax.jit(lambda params: TrainState.create(params, adam))(params)
    size = len(batch["position"])
    return Case(step, (state, batch, jax.random.key(3)), (False, True, False), batch=size, carries=True)


def _train_step_latent(size: int = 100) -> Case:
    experiment, model = _published()
    condition, target = _normal(2, size, *experiment.latent_shape)
    batch = {"condition": condition, "target": target, "position": np.arange(size)}
    loss = steps.transport_loss(model.network, model.transport)
    return _training(experiment.transport_training, loss, model.params["network"], batch)


def _train_step_autoencoder(size: int = 8) -> Case:
    """Of reconstruction alone: what shapes the latent differs by experiment."""
    experiment, model = _published()
    n = experiment.data.resolution
    batch = {"field": _normal(size, n, n), "position": np.arange(size)}
    loss = steps.autoencoder_loss(model.encoder, model.decoder, None)
    return _training(experiment.autoencoder_training, loss, model.params["vorticity"], batch)


ROWS: dict[str, Callable[[], Case]] = {
    "dns_step_64": lambda: _dns_step(64),
    "dns_step_256": lambda: _dns_step(256),
    "encode_published": lambda: _encode(_published),
    "decode_published": lambda: _decode(_published),
    "encode_compact": lambda: _encode(_compact),
    "decode_compact": lambda: _decode(_compact),
    "network_latent_published": lambda: _network(_published),
    "network_physical_published": lambda: _network(_physical),
    "train_step_latent_published": _train_step_latent,
    "train_step_autoencoder_published": _train_step_autoencoder,
    "sample_latent_1step_published": lambda: _sample(_published, 1),
    "sample_latent_1step_compact": lambda: _sample(_compact, 1),
    "sample_latent_one_call_published": lambda: _sample(_one_call, 1),
    "sample_latent_one_call_compact": lambda: _sample(_compact_one_call, 1),
    "sample_physical_50step_published": lambda: _sample(_physical_diffusion, 50),
    "coupled_step_published": lambda: _coupled(_published, 2),
    "coupled_step_compact": lambda: _coupled(_compact, 1),
    "coupled_step_one_call_published": lambda: _coupled(_one_call, 1),
    "coupled_step_one_call_compact": lambda: _coupled(_compact_one_call, 1),
    "coupled_step_one_call_scaled_compact": lambda: _coupled(_compact_one_call, 1, Scaled(_HOLD, "linear")),
    "coupled_step_one_call_extrapolated_compact": lambda: _coupled(_compact_one_call, 1, Extrapolated(_HOLD, "linear")),
    "rollout_gradient": _rollout_gradient,
    "les_dns_step_256": _les_dns_step,
    "les_step_alone": _les_step,
    "les_coupled_step": lambda: _coupled(_les, 1, Matern((3.0,), (0.1,))),
}
"""What is measured, by name, in the order of the table; a call makes the row's parameters and fields."""
