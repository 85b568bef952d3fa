"""Training through the solver: after the phases of another program, the closure is scored by what it does to the flow.

A window is the vorticity of a true trajectory at some snapshots in turn. From the first, an ensemble of a few members is run with
the closed solver by the coupling rule in use, and is scored against each of the others, its leads: the fair CRPS of points and of
Fourier coefficients, see `transport.score`. Gradients go back through solver, rule and closure; each period is computed
again on the way (rematerialised), so that memory grows with the states between periods alone.

What this adds: a pair (w, H) shows the mean of H through the noise of one step. A window has averaged that noise over its steps,
and its error is the one that a rollout makes. Windows train the mean of the closure alone where a call gives it: over a window an
error of the mean counts as spread, which pairs have got right; docs/one_step.md has the measurements. A sample of several calls
has no such mean, and its transport is refused.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import closure_jax
from closure_jax.closure import StochasticClosure
from closure_jax.config.experiment import Experiment, Trained
from closure_jax.config.optimisers import Cosine
from closure_jax.config.settings import Optimisation
from closure_jax.coupling import Coupling, FixedSteps
from closure_jax.coupling.base import Windows
from closure_jax.data.dataset import FIELDS
from closure_jax.errors import check
from closure_jax.training.joint import Joint
from closure_jax.training.phase import Params, Phase, Prepared, Run, evenly, validation_keys
from closure_jax.training.steps import Loss
from closure_jax.training.two_phase import TwoPhase
from closure_jax.transport.score import Score

TRAINED = ("network", "all")
"""What the last phase goes on training: the transport network; or the encoder of w and the decoder of H as well."""


@dataclasses.dataclass(frozen=True)
class Online(Optimisation):
    """The phases of `two_phase`, or of `joint` where the latent is joint, then one of coupled ensembles; an epoch is of windows.

    Attributes:
      leads: snapshots after a window's first that are scored; the interval of the data's snapshots lies between two.
      members: of each ensemble.
      period: solver steps for which a draw is held while training, which sets the price; 0: those of the coupling. A closure that
        was trained under a longer period makes up for its delay, half the period, and is ahead of time under a shorter one.
      trained: see TRAINED.
      start: a trained closure to go on from, in place of the phases before: one that ships, or the work directory of a run on
        the same data.
    """

    batch_size: int = 8
    steps: int = 1_000
    learning_rate: float = 1e-3
    clip_norm: float = 1.0
    ema_decay: float = 0.99
    leads: int = 1
    members: int = 2
    period: int = 0
    trained: str = "network"
    start: str = ""

    trained_through: ClassVar[tuple[str, ...]] = (
        *("coupling.", "evaluation.rollout_sampler_steps"),
        *("transport.rollout_t_max", "problem.solver_dt", "problem.settling_time"),
    )
    """Beginnings of fields of how closures are judged on which the training itself depends."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.leads >= 1, f"leads={self.leads}: expected a whole number of at least 1")
        check(self.members >= 2, f"members={self.members}: expected a whole number of at least 2")
        check(
            self.period >= 0, f"period={self.period}: expected a whole number of solver steps, or 0 for the coupling's"
        )
        check(self.trained in TRAINED, f"trained={self.trained}: expected one of {', '.join(TRAINED)}")

    def rules(self, experiment: Experiment) -> list[tuple[bool, str]]:
        """What the experiment has to have, see `config.rules`."""
        period, interval = self.period or experiment.coupling.period, experiment.simulation().interval()
        solver = experiment.problem.solver()
        rule: Any = experiment.coupling
        has_period = "period" in {field.name for field in dataclasses.fields(rule)}
        named = "program.period" if self.period else "coupling.period" if has_period else "each"
        snapshots = len(experiment.simulation().snapshot_times())
        return [
            (
                solver is not None,
                "program.kind=online: expected a problem with a solver to train through, and this one has none",
            ),
            (
                experiment.transport.times == 0,
                f"program.kind=online with transport.process = {experiment.config.transport.process}: expected a transport of one"
                " network call, such as score, whose mean windows train; program.kind=two_phase trains this one",
            ),
            (
                solver is None or _is_whole(interval / (period * solver.dt)),
                f"data.snapshot_every={experiment.data.snapshot_every}: a snapshot each {interval:g}, expected a whole number of"
                f" periods of the solver, {named} = {period} step{'s' if period > 1 else ''}, with program.kind = online, whose"
                " windows are snapshots",
            ),
            (
                self.period == 0 or has_period,
                f"program.period={self.period}: expected 0 with coupling.kind = {experiment.config.coupling.kind}, which has no"
                " period to set",
            ),
            (
                self.leads < snapshots,
                f"program.leads={self.leads}: expected fewer than the {snapshots} snapshots of a trajectory",
            ),
        ]

    def started_from(self, experiment: Experiment) -> str:
        """Digest of the closure to go on from; empty where there is none.

        Raises:
          UserError: see `start`.
        """
        return _loaded(self.start, experiment).digest() if self.start else ""

    def phases(self, experiment: Experiment) -> list[Phase]:
        """Those before, if there is nothing to start from, and the one through the solver."""
        before = [] if self.start else _before(experiment).phases(experiment)
        return [*before, self._phase(experiment)]

    def params(self, trained: Mapping[str, Params]) -> dict[str, Any]:
        """Parameters of the closure: what the last phase left."""
        return dict(trained["online"])

    def closure(self, run: Run, trained: Mapping[str, Params]) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
        """Parameters of the closure, and the scalings of latents that it started with."""
        return self.params(trained), self._begun(run, trained)[1]

    def _begun(self, run: Run, trained: Mapping[str, Params]) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
        """As `closure`, of what the last phase starts from.

        Raises:
          UserError: `start` was trained on other data.
        """
        if not self.start:
            return _before(run.experiment).closure(run, trained)
        from closure_jax.workdir import WorkDir

        model = _loaded(self.start, run.experiment)
        of = WorkDir(self.start).provenance().get("data_checksum", "") if pathlib.Path(self.start).is_dir() else ""
        check(
            of in ("", run.dataset.checksum),
            f"--config.program.start={self.start}: a closure trained on other data (checksum {of[:12]}), expected one of these"
            f" data ({run.dataset.checksum[:12]})",
        )
        numbers = {name: (float(scaling.mean), float(scaling.std)) for name, scaling in model.scalings.items()}
        for field, norm in run.dataset.normalisation.items():
            check(
                np.allclose(numbers[field], (norm.mean, norm.std), rtol=1e-4, atol=1e-4 * norm.std),
                f"--config.program.start={self.start}: a closure of {field} with mean and deviation {numbers[field]}, expected"
                f" one trained on these data, with {(norm.mean, norm.std)}",
            )
        return model.params, {field: numbers[f"latent_{field}"] for field in FIELDS}

    def _phase(self, experiment: Experiment) -> Phase:
        n = experiment.data.resolution

        def start(key: jax.Array, earlier: Mapping[str, Params]) -> Params:
            return _loaded(self.start, experiment).params if self.start else _before(experiment).params(earlier)

        unscaled = experiment.template()["scalings"]
        unscaled = {name: {"mean": jnp.zeros(()), "std": jnp.ones(())} for name in unscaled}
        return Phase(
            name="online",
            section="program",
            training=Trained(self, Cosine(warmup_steps=20)),
            start=start,
            loss=self.loss(experiment, _unfitted(self._rule(experiment)), unscaled),
            batch=lambda size: {"window": jax.ShapeDtypeStruct((size, 1 + self.leads, n, n), jnp.float32)},
            prepare=lambda run, earlier: self._prepare(run, earlier),
        )

    def loss(self, experiment: Experiment, coupling: Coupling, scalings: Mapping[str, Any]) -> Loss:
        """The score of coupled ensembles against their windows, as a function of the closure's parameters.

        A batch holds "window" (batch, 1 + leads, n, n), physical units; measures are the score of each lead.

        Args:
          experiment: its solver, transport and modules.
          coupling: the rule, fitted.
          scalings: {"mean", "std"} by name, see `Experiment.assemble`.
        """
        solver = experiment.problem.solver()
        every = (
            0 if solver is None else round(experiment.simulation().interval() / solver.dt)
        )  # steps between snapshots
        score, number = Score(members=self.members), experiment.evaluation.rollout_sampler_steps

        def loss(params, batch, keys):
            assert solver is not None, "see rules"
            if self.trained == "network":
                params = params | {field: jax.lax.stop_gradient(params[field]) for field in FIELDS}
            model = experiment.assemble({"params": params, "scalings": scalings})
            model = model.replace(transport=model.transport.in_rollouts())
            closed = solver.closed(MeanTrained(model, number), coupling, remat=True)
            window = jnp.asarray(batch["window"])
            of_member = jax.vmap(lambda key: jax.random.split(key, self.members))(keys)
            state = closed.begin(of_member, jnp.repeat(window[:, None, 0], self.members, axis=1))
            measures = {}
            for lead in range(1, self.leads + 1):
                state = closed.advance(of_member, state, (lead - 1) * every, every)
                members = jnp.swapaxes(closed.vorticity(state), 0, 1)
                scaled = (model.scalings["vorticity"].apply(fields) for fields in (members, window[:, lead]))
                measures[f"score_{lead}"] = score.of(*scaled)
            return jnp.mean(jnp.stack(list(measures.values()))), measures

        return loss

    def _rule(self, experiment: Experiment) -> Coupling:
        rule: Any = experiment.coupling
        return dataclasses.replace(rule, period=self.period) if self.period else rule

    def _prepare(self, run: Run, earlier: Mapping[str, Params]) -> Prepared:
        experiment, solver = run.experiment, run.experiment.problem.solver()
        assert solver is not None, "see rules"
        leaves = run.leaves(*self._begun(run, earlier))
        model = experiment.assemble(leaves)
        model = model.replace(transport=model.transport.in_rollouts())
        coupling = self._rule(experiment).fit(
            FixedSteps(model, experiment.evaluation.rollout_sampler_steps),
            Windows(
                run.dataset.vorticity["train"],
                run.dataset.closure["train"],
                experiment.simulation().interval(),
                solver.dt,
            ),
        )
        loss = self.loss(experiment, coupling, leaves["scalings"])
        held = evenly(self.windows(run.dataset.vorticity["validation"]), 4 * self.batch_size)
        keys = validation_keys(experiment, "online", len(held))
        held_loss = jax.jit(lambda params: loss(params, {"window": held}, keys))

        def validate(params: Params) -> dict[str, float]:
            total, measures = held_loss(params)
            return {"validation_loss": float(total)} | {f"validation_{k}": float(v) for k, v in measures.items()}

        return Prepared({"window": self.windows(run.dataset.vorticity["train"])}, loss, validate)

    def windows(self, trajectories: Float[np.ndarray, "trajectory time n n"]) -> Float[np.ndarray, "window time n n"]:
        """All windows of trajectories, of 1 + leads snapshots each; they overlap."""
        count = trajectories.shape[1] - self.leads
        starts = np.stack([trajectories[:, lead : lead + count] for lead in range(self.leads + 1)], axis=2)
        return starts.reshape(-1, *starts.shape[2:])


@flax.struct.dataclass
class MeanTrained(FixedSteps):
    """A learned closure whose mean alone has a gradient, where it has a mean; values are those of `FixedSteps`."""

    def draw(self, noise: Any, vorticity: Float[Array, "batch n n"]) -> Float[Array, "batch n n"]:
        """See `Draw`."""
        drawn, mean = super().draw(noise, vorticity), self.mean(vorticity)
        return drawn if mean is None else mean + jax.lax.stop_gradient(drawn - mean)


def _unfitted(rule: Any) -> Coupling:
    """A rule as far as it is known before it is fitted, see `Coupling`."""
    return rule.stand_in() if hasattr(rule, "stand_in") else rule


def _is_whole(number: float) -> bool:
    return number > 0.5 and abs(number - round(number)) < 1e-6


def _loaded(start: str, experiment: Experiment) -> StochasticClosure:
    """The closure to go on from.

    Raises:
      UserError: there is none, or it is made of other modules than this experiment.
    """
    model = closure_jax.load(start)
    shapes = [
        jax.tree.map(np.shape, {name: params[name] for name in (*FIELDS, "network")})
        for params in (model.params, experiment.template()["params"])
    ]
    check(
        shapes[0] == shapes[1],
        f"--config.program.start={start}: a closure of other modules or sizes, expected one of this configuration's"
        " autoencoder and network",
    )
    return model


def _before(experiment: Experiment) -> TwoPhase | Joint:
    return Joint() if experiment.config.latent.kind == "joint" else TwoPhase()
