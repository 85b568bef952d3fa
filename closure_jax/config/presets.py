"""Every field of the configuration with its published value, and what the smaller presets change."""

from typing import Any

import ml_collections


def paper() -> ml_collections.ConfigDict:
    """Every field, with its published value where there is one."""
    return ml_collections.ConfigDict(
        {
            "experiment": "",
            "preset": "",
            "seed": 0,
            "flow": {  # arXiv 2602.17089, section 2; equations in physics/flow.py and physics/noise.py
                "kind": "kolmogorov",
                "resolution": 256,
                "domain_length": 1.0,
                "viscosity": 1e-3,
                "dt": 1e-3,
                "forcing_amplitude": 0.1,
                "forcing_wavenumber": 1,
                "noise_sigma": 5e-5,
                "noise_kappa": 10.0,
                "noise_alpha": 0.005,
                "initial_alpha": 2.5,
                "initial_tau": 7.0,
            },
            "data": {
                "path": "",  # an existing file, ours or in the authors' layout; empty: simulate
                "seed": 0,  # of the simulation; `seed` above is that of training and evaluation
                "trajectories": 100,
                "test_trajectories": 10,
                "train_trajectories": 0,  # how many of the training trajectories are used; 0: all
                "resolution": 64,
                "burn_in": 20.0,
                "end": 40.0,
                "snapshot_every": 100,  # steps
                "chunk": 50,  # trajectories simulated together
            },
            "autoencoder": {
                "kind": "published",
                "latent_resolution": 16,
                "latent_channels": 1,
                "width": 64,
                "blocks": 1,
                "batch_size": 100,
                "steps": 162_000,  # 1000 epochs of 16,200 fields
                "learning_rate": 1e-3,
                "schedule": "plateau",
                "decay_every": 4860,  # steps; for plateau the patience, 30 epochs
                "decay_factor": 0.8,
                "warmup_steps": 0,
                "clip_norm": 0.0,
                "ema_decay": 0.0,
            },
            "latent": {
                "kind": "ga",
                "mp": {
                    "weight": 1e-2,
                    "neighbours": 5,
                    "scale": "published",  # or "entry": see latent/metric_preserving.py
                },
                "ga": {
                    "weight": 1e-3,
                    "zeta": 1.0,
                    "scale": "neighbourhood",  # or "published", which is inert: see latent/geometry_aware.py
                    "knn": 10,
                    "diffusion_time": 10,
                    "components": 100,
                    "landmarks": 2000,
                },
                "joint": {  # weights beside that of the transport loss; see training/steps.py
                    "closure_weight": 1000.0,  # of the mean squared error in the units of the field
                    "vorticity_weight": 1.0,
                    "moment_weight": 0.1,
                },
            },
            "network": {
                "kind": "fourier",
                "prediction": "target",  # what the network puts out: the path's target, or the data itself
                "width": 20,
                "modes": 4,
                "depth": 4,
                "condition_width": 20,
                "condition_depth": 4,
                "condition_gated": False,
                "hidden": 128,
                "time_features": 256,
                "time_scale": 30.0,
            },
            "transport": {
                "process": "flow_matching",
                "standardise": True,  # latents at variance 1; False: in the units of the field
                "batch_size": 100,
                "steps": 162_000,
                "learning_rate": 1e-3,
                "schedule": "step",
                "decay_every": 16_200,  # 100 epochs
                "decay_factor": 0.5,
                "warmup_steps": 0,
                "clip_norm": 0.0,
                "ema_decay": 0.999,
            },
            "diffusion": {
                "sigma": 30.0,
                "t_max": 1.0,
                "t_min": 1e-3,
                "rho": 7.0,
                "schedule": "karras",  # or "uniform"
                "t_train": 1.0,
                "data_scale": 0.4,
            },  # read where transport.process is diffusion
            "sampler": {"steps": 10},
            "training": {"log_every": 50, "checkpoint_every": 1000, "validation_fields": 256},
            "evaluation": {
                "states": 64,
                "samples": 100,
                "steps": (1, 2, 5, 10, 50),
                "geometry_states": 1000,
                "rollout_states": 10,
                "rollout_members": 100,
                "rollout_chunk": 512,  # members that run together; bounds the memory, changes no number
                "rollout_start": 30.0,
                "rollout_time": 20.0,
                "rollout_sampler_steps": 2,
                "rollout_hold": 5,
                "rollout_white_noise": 5e-5,
                "rollout_t_max": 0.0,  # where diffusion starts in rollouts; 0: at diffusion.t_max
            },
        }
    )


_SMALL = {
    "flow.resolution": 64,
    "data.trajectories": 48,
    "data.test_trajectories": 8,
    "data.chunk": 48,
    "autoencoder.kind": "compact",
    "autoencoder.width": 32,
    "autoencoder.blocks": 3,
    "autoencoder.batch_size": 32,
    "autoencoder.steps": 300,
    "autoencoder.learning_rate": 2e-3,
    "autoencoder.schedule": "cosine",
    "autoencoder.warmup_steps": 20,
    "autoencoder.clip_norm": 1.0,
    "latent.mp.scale": "entry",
    "network.prediction": "data",
    "network.width": 12,
    "network.depth": 2,
    "network.condition_width": 24,
    "network.condition_depth": 3,
    "network.condition_gated": True,
    "network.modes": 8,
    "network.hidden": 64,
    "network.time_scale": 1.0,
    "transport.batch_size": 32,
    "transport.steps": 3000,
    "transport.learning_rate": 3e-3,
    "transport.schedule": "cosine",
    "transport.warmup_steps": 50,
    "transport.clip_norm": 1.0,
    "transport.ema_decay": 0.99,
    "training.log_every": 20,
    "training.checkpoint_every": 200,
    "evaluation.samples": 64,
    "evaluation.geometry_states": 400,
    "evaluation.rollout_states": 2,
    "evaluation.rollout_members": 16,
    "evaluation.rollout_chunk": 128,
    "evaluation.rollout_time": 10.0,
    "evaluation.rollout_sampler_steps": 4,
    "evaluation.rollout_white_noise": 0.0,
}

_TINY = _SMALL | {
    "flow.resolution": 32,
    "data.resolution": 32,
    "data.trajectories": 8,
    "data.test_trajectories": 2,
    "data.chunk": 8,
    "data.burn_in": 1.0,
    "data.end": 3.0,
    "data.snapshot_every": 50,
    "autoencoder.latent_resolution": 8,
    "autoencoder.width": 8,
    "autoencoder.blocks": 1,
    "autoencoder.batch_size": 16,
    "autoencoder.steps": 40,
    "autoencoder.warmup_steps": 5,
    "latent.ga.components": 20,
    "network.width": 8,
    "network.condition_width": 8,
    "network.modes": 4,
    "network.depth": 1,
    "network.condition_depth": 1,
    "network.hidden": 16,
    "network.time_features": 32,
    "transport.batch_size": 16,
    "transport.steps": 60,
    "transport.warmup_steps": 5,
    "training.log_every": 5,
    "training.checkpoint_every": 20,
    "training.validation_fields": 32,
    "evaluation.states": 4,
    "evaluation.samples": 8,
    "evaluation.geometry_states": 24,
    "evaluation.rollout_members": 4,
    "evaluation.rollout_start": 1.5,
    "evaluation.rollout_time": 1.0,
}

CHANGES: dict[str, dict[str, Any]] = {"paper": {}, "small": _SMALL, "tiny": _TINY}
"""Presets by name: what each changes of `paper`, by dotted field."""

LATENTS: dict[str, dict[str, dict[str, Any]]] = {
    "physical": {
        "": {"autoencoder.kind": "identity", "network.modes": 6},
        "paper": {"autoencoder.latent_resolution": 64, "network.width": 40, "network.condition_width": 40},
        # smaller than published, and judged on fewer samples: a network at 64^2 costs sixteen times one at 16^2
        "small": {
            "autoencoder.latent_resolution": 64,
            "network.modes": 12,
            "network.width": 8,
            "network.hidden": 32,
            "network.condition_width": 16,
            "network.condition_depth": 2,
            "transport.batch_size": 16,
            "transport.steps": 2000,
            "evaluation.states": 32,
            "evaluation.samples": 32,
            "evaluation.rollout_members": 4,
        },
        "tiny": {"autoencoder.latent_resolution": 32},
    },
    "recon": {},
    "mp": {"paper": {"autoencoder.batch_size": 180, "autoencoder.steps": 90_000, "autoencoder.decay_every": 2700}},
    "ga": {},
    "joint": {"small": {"transport.steps": 1500}},  # a step trains both autoencoders too
}
"""What a latent space changes, by preset; "" is all presets. 90,000 steps are 1000 epochs at batch 180."""

PROCESSES: dict[str, dict[str, dict[str, Any]]] = {
    "diffusion": {
        "": {"evaluation.rollout_sampler_steps": 10, "diffusion.t_max": 0.5},
        "paper": {"transport.steps": 81_000},
        "paper physical": {
            "transport.steps": 16_200,
            "transport.batch_size": 500,
            "transport.decay_every": 3240,
            "transport.standardise": False,
            "network.time_features": 512,
            "sampler.steps": 50,
            "diffusion.t_max": 1.0,
            "evaluation.rollout_t_max": 0.1,
        },
        # The closure's noise lives in few modes, where white noise of its deviation is weak: a start at t_max = 0.5
        # keeps a fifth of the mean out of the samples, and the network's guess of the data must be sharper than in a latent.
        "small physical": {
            "diffusion.t_max": 1.0,
            "diffusion.data_scale": 0.2,
            "transport.steps": 3000,
            "evaluation.rollout_t_max": 0.8,
            "evaluation.rollout_sampler_steps": 20,
        },
        "joint": {"latent.joint.closure_weight": 100.0},
    },
    "flow_matching": {"paper physical": {"sampler.steps": 50}},
    "interpolant_gaussian": {"": {"evaluation.rollout_sampler_steps": 10}, "paper physical": {"sampler.steps": 50}},
    "interpolant_empirical": {"": {"evaluation.rollout_sampler_steps": 10}, "paper physical": {"sampler.steps": 50}},
}
"""What a process changes, by preset, by latent, and by "PRESET LATENT" where both matter."""
