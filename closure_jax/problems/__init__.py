"""What is closed: a problem's reference system, solver, law and baselines."""

from closure_jax.problems.base import Problem
from closure_jax.problems.given import Given
from closure_jax.problems.kolmogorov import Kolmogorov
from closure_jax.problems.les import LargeEddies

PROBLEMS: dict[str, type[Problem]] = {"given": Given, "kolmogorov": Kolmogorov, "les": LargeEddies}
"""Problems by the name that the configuration gives (`problem.kind`)."""
