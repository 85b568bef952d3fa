"""The PyTorch peer of the benchmark computes what our rows compute; without torch there is nothing to test."""

import importlib.util
import math

import jax
import numpy as np
import pytest
from helpers import REPOSITORY

from closure_jax.bench import rows as benchmarks
from closure_jax.models import autoencoder, layers
from closure_jax.physics import flow as flow_lib
from closure_jax.physics import spectral, stepper

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def peer():
    spec = importlib.util.spec_from_file_location("torch_peer", REPOSITORY / "benchmarks" / "torch_peer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_rows_are_published_rows_of_ours(peer):
    assert {name.removesuffix("_one_draw") for name in peer.ROWS} == {
        name for name in benchmarks.ROWS if "compact" not in name
    } - {"rollout_gradient"}
    assert peer.ROWS["train_step_latent_published"][1] == 100 and peer.ROWS["train_step_autoencoder_published"][1] == 8


def test_its_solver_takes_our_step(peer):
    n = 32
    rng = np.random.default_rng(0)
    flow = flow_lib.KolmogorovFlow(spectral.make_grid(n, 1.0))
    w = spectral.to_physical(
        np.exp(0.003 * spectral.laplacian(flow.grid)) * np.fft.rfft2(rng.standard_normal((2, n, n)))
    )
    w_hat = np.fft.rfft2(w)
    solver = peer.Solver(n)
    advection = solver.mask * torch.fft.rfft2(solver.advection(torch.from_numpy(w_hat.astype(np.complex64))))
    ours = spectral.advection_hat(w_hat, flow.grid)
    assert np.allclose(advection, ours, atol=1e-5 * np.abs(ours).max())
    step = stepper.euler_maruyama(flow, peer.DT)(w_hat, ours)
    theirs = solver.step(torch.from_numpy(w_hat.astype(np.complex64)), advection)
    assert np.allclose(theirs, step, atol=1e-5 * np.abs(step).max())


def test_its_noise_has_the_exact_deviation(peer):
    torch.manual_seed(0)
    exact = 5e-5 * math.sqrt(10 / (4 * math.pi * 0.005 * peer.DT))
    for draws in (1, 10):
        assert float(peer.Solver(32, draws=draws).noise(400).std()) == pytest.approx(exact, rel=0.03)


def test_its_networks_have_our_sizes(peer):
    def size(module):  # a complex weight once
        return sum(p.numel() for p in module.parameters())

    # the release's, without the coordinates that it gives each branch and the fixed frequencies
    assert size(peer.Network(20, 4)) == 181_037 - 80 - 128 and size(peer.Network(40, 6)) == 1_021_497 - 160 - 128
    shape = {"encoder": (1, 64, 64), "decoder": (1, 16, 16, 1)}
    pair = {"encoder": autoencoder.PublishedEncoder(), "decoder": autoencoder.PublishedDecoder()}
    for name, module in pair.items():
        template = jax.eval_shape(lambda m=module, n=name: m.init(jax.random.key(0), np.zeros(shape[n], np.float32)))
        assert size(getattr(peer, name)()) == sum(leaf.size for leaf in jax.tree.leaves(template))


def test_its_spectral_layer_is_ours(peer):
    m, width = 3, 4
    x = np.random.default_rng(1).standard_normal((2, 16, 16, width)).astype(np.float32)
    ours = layers.SpectralConv(width, m)
    space_first = x.transpose(2, 1, 0, 3)
    params = ours.init(jax.random.key(0), space_first)
    weight = np.asarray(params["params"]["real"] + 1j * params["params"]["imaginary"])  # kx = -m .. m - 1
    theirs = peer.SpectralConv(width, m)
    halves = np.stack([weight[m:], weight[:m]]).transpose(0, 3, 4, 1, 2)
    theirs.weight.data = torch.from_numpy(np.ascontiguousarray(halves)).to(torch.cfloat)
    with torch.no_grad():
        y = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert np.allclose(y, ours.apply(params, space_first).transpose(2, 1, 0, 3), atol=1e-5)


def test_its_samplers_reach_the_law_of_a_gaussian(peer):
    torch.manual_seed(0)
    mean, deviation = 0.7, 0.3

    def output(x, tau, condition):  # exact score times the noise's deviation
        noise = torch.sqrt((30 ** (2 * tau) - 1) / (2 * math.log(30)))[:, None]
        return -noise * (x - mean) / (deviation**2 + noise**2)

    drawn = peer.sample_diffusion(output, torch.zeros(20_000, 1), 200)
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.02)
    assert float(drawn.std()) == pytest.approx(deviation, rel=0.06)
    moved = peer.sample_flow(lambda x, tau, condition: condition, torch.full((5000, 1), 2.0), 7)
    assert float(moved.mean()) == pytest.approx(2.0, abs=0.06) and float(moved.std()) == pytest.approx(1.0, rel=0.05)


def test_cheap_rows_run(peer):
    for name in ("dns_step_64", "network_latent_published"):
        row = peer.measure(name, repeats=1)
        assert row["name"] == name and row["seconds"] > 0 and row["batch"] == 16
