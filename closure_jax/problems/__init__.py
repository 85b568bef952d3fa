"""What is closed: a problem's reference system, solver, law and baselines."""

from closure_jax.problems.base import Problem
from closure_jax.problems.kolmogorov import Kolmogorov

PROBLEMS: dict[str, type[Problem]] = {"kolmogorov": Kolmogorov}
"""Problems by the name that the configuration gives (`problem.kind`)."""
