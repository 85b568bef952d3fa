"""Names of fields: the nearest known one, and those that a field had in earlier versions."""

import difflib
from collections.abc import Iterable

RENAMED = {
    **{
        f"flow.{name}": f"problem.{name}"
        for name in (
            "resolution",
            "domain_length",
            "dt",
            "noise_sigma",
            "noise_kappa",
            "noise_alpha",
            "initial_alpha",
            "initial_tau",
        )
    },
    "network.prediction": "transport.prediction",
    **{
        f"diffusion.{name}": f"transport.{name}" for name in ("sigma", "t_max", "t_min", "rho", "t_train", "data_scale")
    },
    "diffusion.schedule": "transport.spacing",
    **{f"latent.mp.{name}": f"latent.{name}" for name in ("weight", "neighbours", "scale")},
    **{
        f"latent.ga.{name}": f"latent.{name}"
        for name in ("weight", "zeta", "scale", "knn", "diffusion_time", "components", "landmarks")
    },
    **{f"latent.joint.{name}": f"latent.{name}" for name in ("closure_weight", "vorticity_weight", "moment_weight")},
    "evaluation.rollout_hold": "coupling.period",
    "evaluation.rollout_white_noise": "coupling.white_noise",
    "evaluation.rollout_t_max": "transport.rollout_t_max",
}
"""Fields of release 0.1 and where they are now; both names work in `--config.FIELD=`, and stored configurations are read."""

READ_WHERE = {
    "diffusion.": ("transport.process", "diffusion"),
    "latent.mp.": ("latent.kind", "mp"),
    "latent.ga.": ("latent.kind", "ga"),
    "latent.joint.": ("latent.kind", "joint"),
    "evaluation.rollout_t_max": ("transport.process", "diffusion"),
}
"""Earlier sections that were read only under one choice: by the beginning of a field's name, (selector, name)."""


def only_where(field: str) -> tuple[str, str] | None:
    """(selector, name) under which an earlier version read the field; None where it always did."""
    return next((where for start, where in READ_WHERE.items() if field.startswith(start)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; the nearest is ..." for a name that is not among the known ones; empty where none is near."""
    known = list(known)
    same_leaf = [field for field in known if field.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    close = same_leaf[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    if not close:  # the leaf may be right and the section wrong
        by_leaf = {field.rsplit(".", 1)[-1]: field for field in known}
        close = [by_leaf[leaf] for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], by_leaf, n=1)]
    return f"; the nearest is '{close[0]}'" if close else ""
