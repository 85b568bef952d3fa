"""The published sizes in plain PyTorch: a peer that `./launch.sh bench --against=FILE.json` sets beside its own rows.

    python benchmarks/torch_peer.py --output=torch.json        # in an environment with torch and numpy
    ./launch.sh bench --against=torch.json

Written as a PyTorch user would from arXiv 2602.17089: FFTs of every field that the equation names, spectral layers by rfft2 and
irfft2, both branches of the network in each sampler step, zero padding in convolutions (circular padding would cost it more).
Noise of variance kappa = 10 is drawn as the published program does after Lord, Powell and Shardlow's Alg. 10.6: the sum of ten
draws. Rows `_one_draw` take one draw, scaled, which has the same law and is what closure_jax does.

Rows are named as in closure_jax/bench/rows.py and measured alike; parameters are those that PyTorch initialises. Imports nothing
of closure_jax, so that the two need not share an environment.
"""

import argparse
import fnmatch
import json
import math
import os
import pathlib
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FIELDS, HOLD, DT, KAPPA = 16, 5, 1e-3, 10

# --- the solver ------------------------------------------------------------------------------------------------------


class Solver:
    """Stochastic Kolmogorov flow on the unit square, vorticity_hat (batch, n, n // 2 + 1) to the same, a step of DT.

    `draws` of standard noise are summed, and scaled to the variance KAPPA.
    """

    def __init__(self, n: int, viscosity: float = 1e-3, draws: int = KAPPA):
        kx = 2 * math.pi * torch.fft.fftfreq(n, 1 / n)[:, None]
        ky = 2 * math.pi * torch.fft.rfftfreq(n, 1 / n)[None, :]
        self.kx, self.ky, self.lap = kx, ky, -(kx**2 + ky**2)
        self.inverse = torch.where(self.lap == 0, 0.0, -1 / torch.where(self.lap == 0, 1.0, self.lap))
        third = 2 * math.pi * n / 3
        self.mask = (kx.abs() < third) & (ky.abs() < third)
        x = torch.arange(n) / n
        phase = 2 * math.pi * (x[:, None] + x[None, :])
        self.forcing_hat = torch.fft.rfft2(0.1 * (torch.sin(phase) + torch.cos(phase)))
        self.viscosity, self.n, self.draws = viscosity, n, draws
        k = 2 * math.pi * torch.fft.fftfreq(n, 1 / n)
        self.amplitude = torch.exp(-0.005 * (k[:, None] ** 2 + k[None, :] ** 2) / 2)

    def advection(self, w_hat: torch.Tensor) -> torch.Tensor:
        """-u.grad(w) on the grid, (batch, n, n)."""
        psi_hat = self.inverse * w_hat
        u, v, w_x, w_y = (
            torch.fft.irfft2(self.mask * factor * field)
            for factor, field in (
                (1j * self.ky, psi_hat),
                (-1j * self.kx, psi_hat),
                (1j * self.kx, w_hat),
                (1j * self.ky, w_hat),
            )
        )
        return -(u * w_x + v * w_y)

    def noise(self, batch: int) -> torch.Tensor:
        """sigma dW/dt on the grid, (batch, n, n): Lord, Powell, Shardlow 2014, Alg. 10.6."""
        xi = math.sqrt(KAPPA / self.draws) * torch.randn(self.draws, batch, self.n, self.n, 2).sum(0)
        xi = torch.view_as_complex(xi)
        return 5e-5 / math.sqrt(DT) * self.n**2 * torch.fft.ifft2(self.amplitude * xi).real

    def step(self, w_hat: torch.Tensor, closure_hat: torch.Tensor | None = None) -> torch.Tensor:
        """Explicit closure and forcing, Crank-Nicolson diffusion; the exact closure where none is given."""
        if closure_hat is None:
            closure_hat = self.mask * torch.fft.rfft2(self.advection(w_hat) + self.noise(len(w_hat)))
        half = 0.5 * DT * self.viscosity * self.lap
        return ((1 + half) * w_hat + DT * (closure_hat + self.forcing_hat)) / (1 - half)

    def initial(self) -> torch.Tensor:
        """Random smooth fields, (FIELDS, n, n // 2 + 1)."""
        return torch.fft.rfft2(torch.randn(FIELDS, self.n, self.n)) * torch.exp(self.lap / 500)


# --- the published autoencoder ---------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Group norm, SiLU, convolution, twice, beside a 1x1 shortcut: (batch, c, n, n)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(32, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """x + self-attention over the points of the plane: (batch, c, n, n)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, channels)
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(x.shape)


def encoder(w: int = 64) -> nn.Sequential:
    """(batch, 1, 64, 64) -> (batch, 1, 16, 16)."""
    down = [nn.Conv2d(c, c, 3, stride=2, padding=1) for c in (2 * w, 4 * w)]
    blocks = [nn.Conv2d(1, w, 3, padding=1), Residual(w, 2 * w), down[0], Residual(2 * w, 4 * w), down[1]]
    blocks += [Residual(4 * w, 4 * w), Attention(4 * w, 8), Residual(4 * w, 4 * w)]
    return nn.Sequential(*blocks, nn.GroupNorm(32, 4 * w), nn.SiLU(), nn.Conv2d(4 * w, 1, 3, padding=1))


def decoder(w: int = 64) -> nn.Sequential:
    """(batch, 1, 16, 16) -> (batch, 1, 64, 64)."""
    blocks = [nn.Conv2d(1, 4 * w, 3, padding=1), Residual(4 * w, 4 * w), Attention(4 * w, 4), Residual(4 * w, 4 * w)]
    for inputs, outputs in ((4 * w, 2 * w), (2 * w, w)):
        blocks += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, inputs, 3, padding=1), Residual(inputs, outputs)]
    return nn.Sequential(*blocks, nn.GroupNorm(32, w), nn.SiLU(), nn.Conv2d(w, 1, 3, padding=1))


# --- the published network -------------------------------------------------------------------------------------------


class SpectralConv(nn.Module):
    """Fourier layer (Li et al. 2021) on the modes |kx| <= m, 0 <= ky < m: (batch, c, n, n)."""

    def __init__(self, width: int, modes: int):
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(2, width, width, modes, modes, dtype=torch.cfloat) / width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m, x_hat = self.modes, torch.fft.rfft2(x)
        out = torch.zeros_like(x_hat)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", x_hat[:, :, :m, :m], self.weight[0])
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", x_hat[:, :, -m:, :m], self.weight[1])
        return torch.fft.irfft2(out, s=x.shape[-2:])


class Branch(nn.Module):
    """Lift, then four layers spectral + 1x1 [+ time], GELU between two: (batch, 1, n, n) -> (batch, width, n, n)."""

    def __init__(self, width: int, modes: int):
        super().__init__()
        self.lift = nn.Conv2d(1, width, 1)
        self.spectral = nn.ModuleList(SpectralConv(width, modes) for _ in range(4))
        self.pointwise = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        x = self.lift(x)
        for i in range(4):
            x = F.gelu(x) if i else x
            x = self.spectral[i](x) + self.pointwise[i](x)
            x = x if time is None else x + time[:, :, None, None]
        return x


class Network(nn.Module):
    """Velocity or score network: state and condition (batch, 1, n, n), time (batch,) -> (batch, 1, n, n)."""

    def __init__(self, width: int, modes: int, time_features: int = 256):
        super().__init__()
        self.register_buffer("frequencies", 30 * torch.randn(time_features // 2))
        self.embed = nn.Linear(time_features, time_features)
        self.time = nn.Linear(time_features, width)  # one for all layers
        self.state, self.condition = Branch(width, modes), Branch(width, modes)
        self.mix = nn.ModuleList((nn.Conv2d(2 * width, width, 1), nn.Conv2d(width, width, 1)))
        self.hidden, self.output = nn.Conv2d(width, 128, 1), nn.Conv2d(128, 1, 1)

    def forward(self, x: torch.Tensor, tau: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        phase = 2 * math.pi * tau[:, None] * self.frequencies
        time_features = F.silu(self.embed(torch.cat([phase.sin(), phase.cos()], dim=1)))
        h = torch.cat([self.state(x, self.time(time_features)), self.condition(condition)], dim=1)
        for layer in self.mix:
            h = F.gelu(layer(h))
        return self.output(F.gelu(self.hidden(h)))


def sample_flow(network: Network, condition: torch.Tensor, steps: int) -> torch.Tensor:
    """Flow matching, Euler's steps from a Gaussian source."""
    x = torch.randn_like(condition)
    for i in range(steps):
        x = x + network(x, torch.full((len(x),), i / steps), condition) / steps
    return x


def sample_diffusion(network: Network, condition: torch.Tensor, steps: int, t_min: float = 1e-3) -> torch.Tensor:
    """Variance-exploding diffusion, g = 30^t: reverse SDE by Euler-Maruyama at Karras times (rho 7) and then 0."""
    ramp = np.linspace(1, t_min ** (1 / 7), steps) ** 7
    times = np.append(ramp, 0.0)
    deviation = np.sqrt((30 ** (2 * times) - 1) / (2 * math.log(30)))
    x = deviation[0] * torch.randn_like(condition)
    for i in range(steps):
        t, size, g = times[i], times[i] - times[i + 1], 30 ** times[i]
        score = network(x, torch.full((len(x),), t, dtype=torch.float32), condition) / deviation[i]
        x = x + size * g**2 * score
        if i < steps - 1:
            x = x + math.sqrt(size) * g * torch.randn_like(x)
    return x


# --- rows ------------------------------------------------------------------------------------------------------------


def _dns(n: int, draws: int = KAPPA) -> Callable[[], None]:
    solver, state = Solver(n, draws=draws), [Solver(n).initial()]

    def call():
        with torch.no_grad():
            state[0] = solver.step(state[0])

    return call


def _evaluated(module: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> Callable[[], None]:
    def call():
        with torch.no_grad():
            module(*inputs)

    return call


def _network(n: int, width: int, modes: int) -> Callable[[], None]:
    state, condition = torch.randn(2, FIELDS, 1, n, n)
    return _evaluated(Network(width, modes), state, torch.rand(FIELDS), condition)


def _trained(module: nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    optimiser = torch.optim.Adam(module.parameters(), 1e-3)

    def call():
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return call


def _train_latent(batch: int = 100) -> Callable[[], None]:
    network = Network(20, 4)
    condition, target = torch.randn(2, batch, 1, 16, 16)

    def loss():
        source, tau = torch.randn_like(target), torch.rand(batch)
        t = tau[:, None, None, None]
        return F.mse_loss(network((1 - t) * source + t * target, tau, condition), target - source)

    return _trained(network, loss)


def _train_autoencoder(batch: int = 8) -> Callable[[], None]:
    module, field = nn.Sequential(encoder(), decoder()), torch.randn(batch, 1, 64, 64)
    return _trained(module, lambda: F.mse_loss(module(field), field))


def _latent_closure(steps: int) -> Callable[[torch.Tensor], torch.Tensor]:
    encode, network, decode = encoder(), Network(20, 4), decoder()
    return lambda field: decode(sample_flow(network, encode(field), steps))


def _sample_physical() -> Callable[[], None]:
    network = Network(40, 6, time_features=512)
    return _evaluated(lambda condition: sample_diffusion(network, condition, 50), torch.randn(FIELDS, 1, 64, 64))


def _coupled() -> Callable[[], None]:
    solver, closure = Solver(64), _latent_closure(2)
    start = solver.initial()

    def run(w_hat):
        field = closure(torch.fft.irfft2(w_hat)[:, None])[:, 0]
        closure_hat = torch.fft.rfft2(field + 5e-5 * torch.randn_like(field))
        for _ in range(HOLD):
            w_hat = solver.step(w_hat, closure_hat)
        return w_hat

    return _evaluated(run, start)


ROWS = {  # name: (what makes the call, batch, solver steps in a call)
    "dns_step_64": (lambda: _dns(64), FIELDS, 1),
    "dns_step_64_one_draw": (lambda: _dns(64, 1), FIELDS, 1),
    "dns_step_256": (lambda: _dns(256), FIELDS, 1),
    "dns_step_256_one_draw": (lambda: _dns(256, 1), FIELDS, 1),
    "encode_published": (lambda: _evaluated(encoder(), torch.randn(FIELDS, 1, 64, 64)), FIELDS, 1),
    "decode_published": (lambda: _evaluated(decoder(), torch.randn(FIELDS, 1, 16, 16)), FIELDS, 1),
    "network_latent_published": (lambda: _network(16, 20, 4), FIELDS, 1),
    "network_physical_published": (lambda: _network(64, 40, 6), FIELDS, 1),
    "train_step_latent_published": (_train_latent, 100, 1),
    "train_step_autoencoder_published": (_train_autoencoder, 8, 1),
    "sample_latent_1step_published": (
        lambda: _evaluated(_latent_closure(1), torch.randn(FIELDS, 1, 64, 64)),
        FIELDS,
        1,
    ),
    "sample_physical_50step_published": (_sample_physical, FIELDS, 1),
    "coupled_step_published": (_coupled, FIELDS, HOLD),
}


def measure(name: str, repeats: int | None) -> dict:
    """One row as bench writes it: median and quartiles of about 1.5 s of calls, at least 5; the first does not count."""
    make, batch, steps = ROWS[name]
    torch.manual_seed(0)
    call, seconds = make(), []
    call()
    while len(seconds) < (repeats or 5) or (repeats is None and sum(seconds) < 1.5):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    low, median, high = np.quantile(np.array(seconds) / steps, (0.25, 0.5, 0.75)).tolist()
    device = f"cpu, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}"
    return {"name": name, "seconds": median, "batch": batch, "device": device, "spread": [low, high]}


def main() -> None:
    """Measures the chosen rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", metavar="FILE.json", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="*", help="names or patterns, with commas between")
    parser.add_argument("--repeats", type=int, help="calls of each; default 1.5 s of them, at least 5")
    options = parser.parse_args()
    patterns = options.only.split(",")
    names = [name for name in ROWS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        parser.error(f"--only={options.only} matches none of {', '.join(ROWS)}")
    rows = []
    for name in names:
        rows.append(measure(name, options.repeats))
        print(f"{name}: {1e3 * rows[-1]['seconds']:.3g} ms", flush=True)
    options.output.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
