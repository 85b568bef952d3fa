"""A generator of one call, x = g(condition, z) with z standard normal, trained by a proper score of several of its samples.

A score S(x_1 .. x_M, y) of M samples against one draw y of the truth is proper where its mean over y is least for samples of the
law of y. The fair CRPS (Ferro 2014) of one number is

    mean |x_i - y| - 1 / (2 M (M - 1)) sum_ij |x_i - x_j|

and sees the law of that number alone. Here it is the mean over all points, which gives each point its law, plus a weight times
the mean over the real and imaginary parts of all Fourier coefficients, which gives each scale its share of the noise: points
alone leave the correlation between them free (arXiv 2507.12144, 2511.23043). The energy score (Gneiting and Raftery 2007) has
the norm of the whole sample in place of the absolute value, and sees the joint law at once, but most of it weakly.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from closure_jax import random
from closure_jax.errors import check
from closure_jax.transport.base import Field, Noise, Steps
from closure_jax.transport.one_call import OneCall


def ensemble_score(
    samples: Float[Array, " members *shape"],
    truth: Float[Array, " *shape"],
    distance: Callable[[jax.Array], jax.Array],
    fairness: float,
) -> Float[Array, ""]:
    """mean |x_i - y| - (1 - (1 - fairness) / M) / (2 M (M - 1)) sum_ij |x_i - x_j|, |.| being a distance.

    Args:
      samples: x_i, M of them.
      truth: y.
      distance: differences -> the mean of their sizes.
      fairness: see `Score`.
    """
    count = samples.shape[0]
    # Member i meets member i + shift: each pair once for shifts below M / 2, twice for M / 2.
    shifts = range(1, count // 2 + 1)
    weights = [0.5 if 2 * shift == count else 1.0 for shift in shifts]
    mutual = sum(w * distance(samples - jnp.roll(samples, s, axis=0)) for w, s in zip(weights, shifts, strict=True))
    return distance(samples - truth) - (1 - (1 - fairness) / count) * mutual / (count - 1)


def fourier_parts(x: Float[Array, "..."], axis: int) -> Float[Array, "... 2"]:
    """Real and imaginary parts of the orthonormal Fourier coefficients of real fields, whose plane is `axis` and the next."""
    coefficients = jnp.fft.rfft2(x, axes=(axis, axis + 1), norm="ortho")
    return jnp.stack([coefficients.real, coefficients.imag], axis=-1)


def _crps(transport: "Score", samples: jax.Array, truth: jax.Array) -> jax.Array:
    def of(x: jax.Array, y: jax.Array) -> jax.Array:
        return ensemble_score(x, y, lambda difference: jnp.mean(jnp.abs(difference)), transport.fairness)

    points = of(samples, truth)
    if not transport.spectral_weight:
        return points
    return points + transport.spectral_weight * of(fourier_parts(samples, 2), fourier_parts(truth, 1))


def _energy(transport: "Score", samples: jax.Array, truth: jax.Array) -> jax.Array:
    def norm(difference: jax.Array) -> jax.Array:
        squares = jnp.mean(difference**2, axis=tuple(range(2, difference.ndim)))
        return jnp.mean(jnp.sqrt(squares + 1e-12))

    return ensemble_score(samples, truth, norm, transport.fairness)


SCORES: dict[str, Callable[["Score", jax.Array, jax.Array], jax.Array]] = {"crps": _crps, "energy": _energy}
"""(transport, samples (member, batch, n, n, ...), truth (batch, n, n, ...)) -> score."""


@dataclasses.dataclass(frozen=True)
class Score(OneCall):
    """One network call a sample; the loss is a score of `members` samples of each example.

    Attributes:
      members: M, samples of each example in the loss.
      score: "crps", of points and Fourier coefficients, or "energy"; see SCORES.
      spectral_weight: weight of the Fourier coefficients in "crps".
      fairness: 1: fair, the expectation of the score does not depend on M; below 1: almost fair (Lang et al. 2024, arXiv
        2412.15832), a share 1 - fairness of the biased score, which forbids that all but one of the samples are arbitrary.

    Raises:
      UserError: a field has no possible value; the line starts with FIELD=VALUE.
    """

    members: int = 2
    score: str = "crps"
    spectral_weight: float = 1.0
    fairness: float = 1.0

    def __post_init__(self) -> None:
        check(self.members >= 2, f"members={self.members}: expected a whole number of at least 2")
        check(self.score in SCORES, f"score={self.score}: expected one of {', '.join(sorted(SCORES))}")
        check(
            self.spectral_weight >= 0, f"spectral_weight={self.spectral_weight}: expected a number that is not negative"
        )
        check(0 < self.fairness <= 1, f"fairness={self.fairness}: expected a number above 0, up to 1")

    def noise(self, keys: Key[Array, " batch"], shape: tuple[int, ...], steps: Steps) -> Noise:
        """{"source": z of (batch, ...)}, whatever the number of steps."""
        del steps
        dtype = jnp.result_type(float)
        return {"source": jax.vmap(lambda key: random.normal(key, shape, dtype))(keys)}

    def loss(
        self,
        field: Field,
        keys: Key[Array, " batch"],
        condition: Float[Array, " batch *shape"],
        x: Float[Array, "batch ..."],
        decode: Callable[[jax.Array], jax.Array] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """The score of `members` samples of each example; also their "variance" and the "squared_error" of one, whose means
        over devices are those of the whole batch.

        Args:
          field: the generator as a function of z, the condition bound.
          keys: one for each example.
          condition: shape of z.
          x: the truth.
          decode: from samples (any number, ...) to what is scored, of which x is then the truth.
        """

        def draw(number: jax.Array) -> jax.Array:
            of_member = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
            return field(self.noise(of_member, condition.shape[1:], 1)["source"])

        samples = jax.vmap(draw)(jnp.arange(self.members))
        if decode is not None:  # as one batch: convolutions under vmap are slow
            samples = decode(samples.reshape(-1, *samples.shape[2:])).reshape(self.members, *x.shape)
        variance, squared_error = jnp.mean(jnp.var(samples, axis=0, ddof=1)), jnp.mean((samples - x) ** 2)
        return self.of(samples, x), {"variance": variance, "squared_error": squared_error}

    def of(
        self, samples: Float[Array, " members batch *shape"], truth: Float[Array, " batch *shape"]
    ) -> Float[Array, ""]:
        """The score of samples (member, batch, n, n, ...) against truth (batch, n, n, ...)."""
        return SCORES[self.score](self, samples, truth)

    def sample(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: Steps
    ) -> Float[Array, " batch *shape"]:
        """g(condition, z).

        Raises:
          UserError: a number of steps that is not 1.
        """
        self.check_steps(steps)
        return field(jnp.asarray(noise["source"], condition.dtype))

    def trajectory(
        self, field: Field, noise: Noise, condition: Float[Array, " batch *shape"], steps: int
    ) -> Float[Array, "states batch *shape"]:
        """z, and the sample."""
        return jnp.stack([jnp.asarray(noise["source"], condition.dtype), self.sample(field, noise, condition, steps)])
