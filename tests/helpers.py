"""What several test modules ask for: experiments by process and latent, and the one line of a refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from closure_jax import config
from closure_jax.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent
PROCESSES = {
    "flow_matching": "fm",
    "diffusion": "dm",
    "interpolant_gaussian": "si_gaussian",
    "interpolant_empirical": "si_empirical",
    "score": "cs",
    "mean_flow": "mf",
    "conditional_mean": "mse",
}


def configured(preset: str, process: str = "flow_matching", latent: str = "ga", *overrides: str) -> Any:
    """The configuration of an experiment, with `field=value` texts applied."""
    c = config.load(f"{REPOSITORY / 'experiments' / PROCESSES[process]}_{latent}.py:{preset}")
    config.override(c, overrides)
    return c


def built(preset: str, process: str = "flow_matching", latent: str = "ga", *overrides: str) -> config.Experiment:
    """The objects of an experiment."""
    return config.build(configured(preset, process, latent, *overrides))


def refusal(function: Callable[..., Any], *arguments: Any) -> str:
    """The message of the UserError that a call must raise, one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message and len(message.splitlines()) == 1
    return message
