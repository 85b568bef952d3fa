"""The benchmark: counts of operations against closed forms, every row built, cheap rows run, files and refusals."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import REPOSITORY, built, refusal

from closure_jax import config
from closure_jax.bench import cost, measure, roofline, table
from closure_jax.bench import rows as benchmarks
from closure_jax.commands import bench
from closure_jax.parallel import devices

pytestmark = pytest.mark.usefixtures("unchecked")

RATES = roofline.Rates(matrix=1e11, bandwidth=1e10)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("CLOSURE_JAX_HOME", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    jax.devices()  # from here on this process has one device


@pytest.fixture
def rates(monkeypatch):
    monkeypatch.setattr(roofline, "measure_rates", lambda: RATES)


# --- counts ----------------------------------------------------------------------------------------------------------


def test_a_loop_counts_as_often_as_it_runs():
    a = jnp.ones((32, 32))

    def twelve(a):  # nested: three times four products
        return jax.lax.fori_loop(0, 3, lambda i, b: jax.lax.fori_loop(0, 4, lambda j, c: c @ a, b), a)

    assert roofline.operations(lambda a: a @ a, a) == pytest.approx(2 * 32**3, rel=1e-3)
    assert roofline.operations(twelve, a) == pytest.approx(12 * 2 * 32**3, rel=1e-3)


def test_a_gradient_through_recomputed_loops_counts_both_passes():
    a = jnp.ones((32, 32))

    def loss(a):
        step = jax.checkpoint(lambda b, _: (jnp.sin(b @ a), None))
        return jnp.sum(jax.lax.scan(step, a, None, length=5)[0])

    # forward, forward again, and two products each on the way back
    assert roofline.operations(jax.grad(loss), a) == pytest.approx(5 * 4 * 2 * 32**3, rel=0.1)


def test_transforms_count_by_their_points():
    for transform, dtype, factor in ((jnp.fft.rfft2, jnp.float32, 2.5), (jnp.fft.fft2, jnp.complex64, 5.0)):
        x = jnp.ones((3, 64, 64), dtype)
        assert roofline.operations(transform, x) == pytest.approx(factor * 3 * 64**2 * 12, rel=1e-6)


def test_bytes_are_what_is_read_and_written():
    a, b = jnp.ones((10, 4)), jnp.ones(100)
    assert roofline.bytes_moved(lambda a, b: (a + 1, jnp.sum(a)), a, b) == 4 * (40 + 40 + 1)
    keys = jax.random.split(jax.random.key(0), 5)
    assert roofline.bytes_moved(lambda keys: jax.vmap(jax.random.bits)(keys), keys) == 5 * 8 + 5 * 4


def test_the_floor_is_the_slower_of_the_two_limits():
    assert RATES.floor(1e11, 1e9) == 1.0 and RATES.floor(1e9, 1e10) == 1.0
    assert 1e8 < roofline.triad_bandwidth(2**20, trials=2) < 1e13


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stored"), [("fm_physical", 256), ("fm_physical", 64), ("fm_physical", 32), ("les_mse_physical", 32)]
)
def test_steps_of_a_large_grid_are_counted_on_a_smaller_one(monkeypatch, name, stored):
    c = config.load(f"{REPOSITORY / 'experiments' / name}.py:tiny")
    config.override(c, ["problem.resolution=256", f"data.resolution={stored}"])
    experiment = config.build(c)
    whole = cost.phases_of(experiment)
    monkeypatch.setattr(cost, "_COUNTED", 64)
    less = cost.phases_of(experiment)
    assert cost._on_less(experiment.problem).resolution == 64
    for phase, counted in zip(whole, less, strict=True):
        assert counted.work == pytest.approx(phase.work, rel=0.2), phase.name
        assert counted.memory == pytest.approx(phase.memory, rel=0.05), phase.name


@pytest.mark.slow
def test_the_costs_that_a_dry_run_says_are_those_of_a_run():
    seconds = {phase.name: phase.work / 195e9 for phase in cost.phases_of(built("small"))}
    # wall times of two CPU cores that reach 195 GFLOP/s in matrix products
    for name, measured in (
        ("data", 95),
        ("autoencoder_vorticity", 41),
        ("autoencoder_closure", 41),
        ("transport", 119),
    ):
        assert measured / 1.5 < seconds[name] < measured * 1.5, name


# --- rows ------------------------------------------------------------------------------------------------------------

# shape of the first output; None where it is a state of training or a tree of gradients
SHAPES = {
    "dns_step_64": (16, 64, 33),
    "dns_step_256": (16, 256, 129),
    "encode_published": (16, 16, 16, 1),
    "decode_published": (16, 64, 64),
    "encode_compact": (16, 16, 16, 1),
    "decode_compact": (16, 64, 64),
    "network_latent_published": (16, 16, 16, 1),
    "network_physical_published": (16, 64, 64, 1),
    "train_step_latent_published": None,
    "train_step_autoencoder_published": None,
    "sample_latent_1step_published": (16, 64, 64),
    "sample_latent_1step_compact": (16, 64, 64),
    "sample_latent_one_call_published": (16, 64, 64),
    "sample_latent_one_call_compact": (16, 64, 64),
    "sample_physical_50step_published": (16, 64, 64),
    "coupled_step_published": (16, 64, 33),
    "coupled_step_compact": (16, 64, 33),
    "coupled_step_one_call_published": (16, 64, 33),
    "coupled_step_one_call_compact": (16, 64, 33),
    "coupled_step_one_call_scaled_compact": (16, 64, 33),
    "coupled_step_one_call_extrapolated_compact": (16, 64, 33),
    "rollout_gradient": None,
    "les_dns_step_256": (16, 256, 129),
    "les_step_alone": (16, 32, 17),
    "les_coupled_step": (16, 32, 17),
}
BATCHES = {"train_step_latent_published": 100, "train_step_autoencoder_published": 8}


@pytest.mark.slow
def test_the_rows_are_those_of_the_list_and_every_one_builds():
    assert list(benchmarks.ROWS) == list(SHAPES)
    for name, shape in SHAPES.items():
        case = benchmarks.ROWS[name]()
        outputs = jax.eval_shape(devices.alone(case.function), *case.arguments)
        assert len(case.split) == len(case.arguments), name
        first = outputs[0] if case.carries else outputs
        assert case.batch == BATCHES.get(name, 16), name
        if shape:
            assert first.shape == shape, name
        else:  # takes the place of the first argument, or has its form
            shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree) for tree in (first, case.arguments[0])]
            assert shapes[0] == shapes[1], name


@pytest.mark.slow
def test_published_rows_have_the_published_sizes_and_compact_ones_those_of_small():
    def size(params):
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def complex_size(params):  # a complex weight once
        flat = jax.tree_util.tree_flatten_with_path(params)[0]
        return sum(leaf.size for path, leaf in flat if "imaginary" not in jax.tree_util.keystr(path))

    latent = benchmarks.ROWS["network_latent_published"]().arguments[0]
    physical = benchmarks.ROWS["network_physical_published"]().arguments[0]
    # as published, without the coordinates of the grid and the fixed frequencies of the time's embedding
    assert complex_size(latent) == 181_037 - 80 - 128 and complex_size(physical) == 1_021_497 - 160 - 128
    published = benchmarks.ROWS["train_step_autoencoder_published"]().arguments[0].params
    assert 8.4e6 < size(published) < 9.1e6

    small = built("small")
    model = benchmarks.ROWS["sample_latent_1step_compact"]().arguments[0]
    assert jax.tree.map(np.shape, model.params) == jax.tree.map(np.shape, small.template()["params"])
    assert (model.transport, model.network) == (small.transport, small.network)


@pytest.mark.slow
def test_a_dns_call_is_as_many_steps_of_the_true_system_and_counts_as_one():
    case = benchmarks.ROWS["dns_step_64"]()
    state, keys = case.arguments
    once = jax.jit(lambda state, keys: case.unit(state, keys)[0])
    many = jax.jit(lambda state, keys: case.function(state, keys)[0])
    assert roofline.operations(case.function, *case.arguments) == pytest.approx(
        case.steps * roofline.operations(case.unit, *case.arguments), rel=0.02
    )
    # developed by 1e-3 a step, the fields move by little
    energy = [float(jnp.linalg.norm(one)) for one in (state, once(state, keys), many(state, keys))]
    assert energy[0] > 0 and energy[1] == pytest.approx(energy[0], rel=0.01)
    assert energy[2] == pytest.approx(energy[0], rel=0.1)


@pytest.mark.slow
def test_two_cheap_rows_run_and_fill_every_field():
    for name in ("network_latent_published", "encode_compact"):
        row = measure.measure(name, benchmarks.ROWS[name](), RATES, repeats=3)
        assert (row["name"], row["batch"], row["repeats"]) == (name, 16, 3)
        assert 0 < row["spread"][0] <= row["seconds"] <= row["spread"][1] and row["compile_seconds"] > 0
        assert row["floor_seconds"] == RATES.floor(row["operations"], row["bytes"])
        assert row["share"] == pytest.approx(row["floor_seconds"] / row["seconds"])


def test_a_row_that_carries_its_state_goes_on_from_it():
    starts = []

    def count(state, step):
        jax.debug.callback(lambda value: starts.append(float(value)), state)
        return state + step, ()

    case = benchmarks.Case(count, (jnp.float32(0), jnp.float32(2)), (True, False), carries=True)
    seconds, _ = measure.time_calls(case, repeats=3)
    jax.effects_barrier()
    assert len(seconds) == 3 and starts == [0, 2, 4, 6]


FOUR_DEVICES = """
    import sys, jax, numpy as np
    from closure_jax.parallel import devices
    from closure_jax.bench import measure
    from closure_jax.bench import rows as benchmarks
    from closure_jax.commands import bench

    devices.offer_on_cpu(4)
    worst = {}
    for name in ("network_latent_published", "sample_latent_1step_compact", "dns_step_64", "train_step_latent_published"):
        case = benchmarks.ROWS[name]()
        one, four = (function(*arguments) for function, arguments in (measure.program(case, count) for count in (1, 4)))
        if case.carries:
            one, four = one[0], four[0]
        if name.startswith("train"):  # every device has the same
            one, four = one.params, jax.tree.map(lambda leaf: leaf[3], four.params)
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(four))
        worst[name] = max(
            float(np.abs(np.asarray(a) - np.asarray(b).reshape(a.shape)).max() / np.abs(a).max()) for a, b in pairs
        )
    print(worst)
    assert max(worst.values()) < 1e-3
    sys.exit(bench.main(["--devices=4", "--only=encode_compact", "--repeats=1", "--output=four.json"]))
"""


@pytest.mark.slow
def test_rows_on_four_devices_compute_what_they_do_on_one():
    command = [sys.executable, "-c", textwrap.dedent(FOUR_DEVICES)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)}
    flags = os.environ.get("XLA_FLAGS", "").split()
    environment["XLA_FLAGS"] = " ".join(flag for flag in flags if "device_count" not in flag)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row["devices"] == 4 and 0 < row["seconds"] < 100 for row in json.loads(Path("four.json").read_text()))


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_figures_and_page_and_sets_a_peer_beside_them(rates, capsys):
    peer = [
        {"name": "encode_compact", "seconds": 100.0, "device": "abacus"},
        {"name": "decode_published", "seconds": 1000.0, "device": "abacus"},
    ]
    Path("peer.json").write_text(json.dumps(peer))
    status = bench.main(
        ["--only=encode_c*,decode_compact", "--repeats=2", "--output=a/b.json", "--docs=page.md", "--against=peer.json"]
    )
    assert status == 0
    rows = json.loads(Path("a/b.json").read_text())
    assert [row["name"] for row in rows] == ["encode_compact", "decode_compact"]
    for row in rows:
        assert set(row) >= {"name", "seconds", "batch", "device"} and 0 < row["seconds"] < 100
    page = Path("page.md").read_text()
    lines = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("|")]
    assert [line[0].strip() for line in lines] == ["row", "---", "encode_compact", "decode_compact"]
    assert float(lines[2][-1]) == pytest.approx(100 / rows[0]["seconds"], rel=0.01)
    assert lines[3][-2].strip() == "1000 s (published)"  # the peer has no compact decoder
    assert float(lines[3][-1]) == pytest.approx(1000 / rows[1]["seconds"], rel=0.01)
    assert (
        "`./launch.sh bench --only=encode_c*,decode_compact --repeats=2 --against=peer.json" in page
        and "ran on: abacus." in page
    )
    assert str(Path.cwd()) not in page
    assert "encode_compact" in capsys.readouterr().out


def test_a_row_that_the_peer_lacks_has_no_ratio_and_another_form_of_it_has_a_line_of_its_own():
    row = {"name": "dns_step_64", "batch": 16, "seconds": 2.0, "spread": [1.5, 2.5], "floor_seconds": 0.5}
    row |= {"share": 0.25, "operations": 5e10, "bytes": 10, "compile_seconds": 1}
    head, line = table.table([row], RATES, table.Peer({"encode_published": 1.0}, "x"))
    assert line[-2:] == ("–", "–") and len(head) == len(line)
    assert line[2:7] == ("2 s", "1.5 s .. 2.5 s", "500 ms", "25 %", "operations")
    peer = table.Peer({"dns_step_64": 8.0, "dns_step_64_one_draw": 5.0, "dns_step_256": 99.0}, "x")
    head, line, other = table.table([row], RATES, peer)
    assert line[-2:] == ("8 s", "4") and other[0] == "dns_step_64_one_draw" and other[-2:] == ("5 s", "2.5")
    assert len(other) == len(head)


def test_mistakes_are_refused_in_one_line_and_nothing_is_written(capsys):
    for argument, said in (
        ("--only=encode_compct", "--only=encode_compct is no benchmark; the nearest is 'encode_compact'"),
        ("--devices=0", "--devices=0: expected a whole number from 1"),
        ("--devices=64", "--devices=64: expected at most 1, the cpu devices here"),
        ("--repeats=0", "--repeats=0: expected a whole number above 0"),
        ("--output=folder", "--output=folder: expected a file that ends in .json"),
        ("--docs=page.html", "--docs=page.html: expected a file that ends in .md"),
        ("--docs=/proc/x/y.md", "--docs=/proc/x/y.md can't be written"),
        ("--output=/proc/x/y.json", "--output=/proc/x/y.json can't be written"),
        ("--against=nothing.json", "--against=nothing.json is not there"),
    ):
        # one row, since a number of devices is checked against rows that are built
        assert bench.main([argument] if argument.startswith("--only") else ["--only=encode_compact", argument]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"closure_jax: error: {said}") and message.count("\n") == 1
        assert list(Path.cwd().iterdir()) == []


def test_a_peer_that_is_no_list_of_figures_is_refused():
    for content in (
        "{",
        "[1]",
        f'[{{"name": "x", "device": "y", "seconds": {10**400}}}]',
        '[{"name": "x", "device": "y"}]',
        "3",
    ):
        Path("peer.json").write_text(content)
        assert "is no list of {name, seconds, device}" in refusal(table.read_peer, Path("peer.json"))


@pytest.mark.slow
def test_launch_knows_the_command():
    environment = os.environ | {"CLOSURE_JAX_PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    command = ["bash", str(REPOSITORY / "launch.sh"), "bench", "--only=none"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 2 and "--only=none is no benchmark" in result.stderr
