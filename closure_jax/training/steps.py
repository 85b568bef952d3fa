"""Pure training steps: train_step(state, batch, key) -> (state, metrics), for `devices.data_parallel`.

A batch is a dict of arrays with a leading axis; its "position" is each example's place in the global batch. Draws belong to
(key of the run, step, position), never to a device; losses that couple examples see the global batch.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from closure_jax.closure import apply, bind
from closure_jax.latent.joint import moment_divergence
from closure_jax.parallel import devices
from closure_jax.training.state import TrainState
from closure_jax.transport import Transport

Batch = Mapping[str, jax.Array | np.ndarray]
Loss = Callable[[Any, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""loss(params, batch, keys) -> (scalar, metrics); `keys` one for each local example."""


def make_train_step(
    loss: Loss, optimiser: optax.GradientTransformationExtraArgs, ema_decay: float | None
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """A step for `devices.data_parallel`: gradient of the global mean, optimiser, moving average.

    The average warms up: its decay is min(ema_decay, (1 + step) / (10 + step)). Without a decay the step leaves it alone.
    """

    def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(key, state.step)
        keys = jax.vmap(lambda position: jax.random.fold_in(step_key, position))(batch["position"])
        (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, batch, keys)
        value, metrics, gradients = devices.mean((value, metrics, gradients))
        updates, opt_state = optimiser.update(gradients, state.opt_state, state.params, value=value)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None:
            decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        return TrainState(state.step + 1, params, opt_state, ema), {"loss": value, **metrics}

    return train_step


def autoencoder_loss(encoder: nn.Module, decoder: nn.Module, regulariser: Callable | None) -> Loss:
    """Mean squared reconstruction error of normalised fields, plus the regulariser of the global batch of latents.

    The batch holds "field" (batch, n, n) and, for a regulariser, "extra" (batch, ...): what it needs beside the latent.
    """

    def loss(params, batch, keys):
        del keys
        latent = apply(encoder, params["encoder"], batch["field"])
        error = jnp.mean((apply(decoder, params["decoder"], latent) - batch["field"]) ** 2)
        if regulariser is None:
            return error, {}
        extra = devices.gather(batch["extra"]) if "extra" in batch else None
        term, measures = regulariser(devices.gather(latent), extra)
        return error + term, {"reconstruction": error, **measures}

    return loss


def transport_loss(network: nn.Module, transport: Transport) -> Loss:
    """The transport's own loss on pairs; the batch holds "condition" and "target", (batch, r, r, c) standardised.

    Where it holds "source", those are the noise from which the targets were drawn.
    """

    def loss(params, batch, keys):
        field = bind(network, params, batch["condition"])
        coupled = {"source": batch["source"]} if "source" in batch else {}
        return transport.loss(field, keys, batch["condition"], batch["target"], **coupled)

    return loss


def joint_loss(
    encoder: nn.Module, decoder: nn.Module, network: nn.Module, transport: Transport, weights: dict[str, float]
) -> Loss:
    """Both autoencoders and the transport network at once (arXiv 2602.17089):

        a mse(H) + b mse(w) + c moment divergence of H's latents + transport loss

    Args:
      encoder, decoder: modules that both fields share; each has parameters of its own.
      network, transport: what samples the closure's latent given that of the vorticity.
      weights: {"closure": a, "vorticity": b} of the mean squared errors of normalised fields, {"moments": c}.

    The batch holds "vorticity" and "closure", (batch, n, n) normalised; params are {"vorticity", "closure"}, each with encoder
    and decoder, and "network". Gradients of the transport loss reach both encoders; of a generator of one call the decoded
    samples are scored against the closure itself.
    """

    def loss(params, batch, keys):
        latents, measures = {}, {}
        for name in ("vorticity", "closure"):
            latents[name] = apply(encoder, params[name]["encoder"], batch[name])
            rebuilt = apply(decoder, params[name]["decoder"], latents[name])
            measures[f"reconstruction_{name}"] = jnp.mean((rebuilt - batch[name]) ** 2)
        measures["moments"] = moment_divergence(devices.gather(latents["closure"]))
        field, x, options = bind(network, params["network"], latents["vorticity"]), latents["closure"], {}
        if transport.times == 0:  # a score of latents would be least where they shrink
            x = batch["closure"]
            options["decode"] = lambda samples: apply(decoder, params["closure"]["decoder"], samples)
        transport_term, others = transport.loss(field, keys, latents["vorticity"], x, **options)
        measures |= {"transport": transport_term} | {f"transport_{name}": value for name, value in others.items()}
        total = sum(weights[name] * measures[f"reconstruction_{name}"] for name in latents)
        return total + weights["moments"] * measures["moments"] + measures["transport"], measures

    return loss
