"""Many devices and processes: how they find each other, and that they compute what one device computes.

A process of one CPU device, one of four, and two of two devices on loopback, which share a work directory, run the same job.
"""

import os
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import REPOSITORY, refusal

import closure_jax
from closure_jax import config
from closure_jax.config.optimisers import optimiser
from closure_jax.parallel import devices, processes, progress
from closure_jax.training.state import TrainState
from closure_jax.workdir import WorkDir

EXPERIMENT = REPOSITORY / "experiments" / "cs_ga.py"
SHORT = (
    "autoencoder.steps=10 autoencoder.learning_rate=1e-3 transport.steps=10 transport.learning_rate=1e-3"
    " training.checkpoint_every=5 training.log_every=1 evaluation.rollout_states=1 data.trajectories=4"
    " data.test_trajectories=2 data.end=2.0 data.burn_in=1.0"
)

# Gradients of the losses, and the losses of five steps along them, saved to sys.argv[2].
GRADIENTS = """
    import dataclasses, sys, jax, jax.numpy as jnp, numpy as np, optax
    from closure_jax import config
    from closure_jax.parallel import devices, processes, progress
    from closure_jax.latent.geometry_aware import GeometryAware
    from closure_jax.latent.metric_preserving import MetricPreserving
    from closure_jax.training import steps
    from closure_jax.training.state import TrainState

    processes.start()
    experiment = config.build(config.load(sys.argv[1] + ":tiny"))
    others = ("fm_ga", "mf_ga", "les_cs_physical")
    others = {name: config.build(config.load(sys.argv[1].replace("cs_ga", name) + ":tiny")) for name in others}
    rng = np.random.default_rng(0)
    f32 = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    # with this optimiser the new parameters are the old ones minus the gradient
    plain = optax.with_extra_args_support(optax.sgd(1.0))
    n = experiment.data.resolution
    cases = {
        "autoencoder": (
            steps.autoencoder_loss(*experiment.autoencoder_modules(), GeometryAware(1e-1, 1.0, 4.0, 4.0)),
            experiment.init_autoencoder(jax.random.key(0)),
            {"field": f32(8, n, n), "extra": f32(8, 12)},
        ),
    } | {
        name: (
            steps.transport_loss(one.network, one.transport),
            one.init_network(jax.random.key(0)),
            {"condition": f32(8, *one.latent_shape), "target": f32(8, *one.latent_shape)},
        )
        for name, one in {"cs_ga": experiment, **others}.items()
    }
    through = config.load(sys.argv[1].replace("cs_ga", "cs_ga_online") + ":tiny")
    config.override(through, ["data.snapshot_every=10", "program.period=5"])
    through = config.build(through)
    rule = dataclasses.replace(through.coupling, period=5)
    unit = {name: {"mean": jnp.zeros(()), "std": jnp.ones(())} for name in through.template()["scalings"]}
    parts = {field: through.init_autoencoder(jax.random.key(0)) for field in ("vorticity", "closure")}
    parts["network"] = through.init_network(jax.random.key(0))
    cases["online"] = through.program.loss(through, rule, unit), parts, {"window": f32(8, 2, n, n)}
    weights = {"vorticity": 1.0, "closure": 2.0, "moments": 0.5}
    modules = *through.autoencoder_modules(), through.network, through.transport
    cases["joint"] = steps.joint_loss(*modules, weights), parts, {"vorticity": f32(8, n, n), "closure": f32(8, n, n)}
    near = steps.autoencoder_loss(*experiment.autoencoder_modules(), MetricPreserving(1.0, 3, True))
    cases["mp"] = near, experiment.init_autoencoder(jax.random.key(0)), {"field": f32(8, n, n), "extra": f32(8, n, n)}
    found = {}
    for name, (loss, params, batch) in cases.items():
        # zero-initialised layers would hide their neighbours' gradients
        params = jax.tree.map(lambda leaf: leaf + 0.05 * np.cos(np.arange(leaf.size)).reshape(leaf.shape).astype("f"), params)
        step = devices.data_parallel(steps.make_train_step(loss, plain, 0.9))
        batch = devices.split({**batch, "position": np.arange(8)})
        losses = []
        for number in range(5):
            old = jax.device_get(params)
            state = devices.replicate(TrainState.create(params, plain))
            state, metrics = step(state, batch, jax.random.key(number))
            gradient = jax.tree.map(np.subtract, old, jax.device_get(devices.unreplicate(state).params))
            size = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
            params = jax.tree.map(lambda a, g: a - 0.1 / size * g, old, gradient)
            losses.append(devices.first(metrics["loss"]))
            if number == 0:
                found |= {f"{name}{i}": leaf for i, leaf in enumerate(jax.tree.leaves(gradient))}
        found["curve_" + name] = np.array(losses)
    if processes.is_main():
        np.savez(sys.argv[2], **found)
"""

# Behind GRADIENTS, which starts the processes and takes sys.argv[1:3]: the job of the command line, its evaluation replaced
# by a note of who evaluates, and then a failure of process 0.
JOB = """
    import os, pathlib
    from closure_jax import interrupts
    from closure_jax.commands import train
    from closure_jax.errors import UserError

    folder = pathlib.Path(sys.argv[2]).parent

    def note(experiment, dataset, model, work, facts):
        work.write_results({"evaluated_by": jax.process_index(), "device": facts["device"]})

    def refuse():
        raise UserError("a mistake that process 0 alone can see")

    def stop():
        raise interrupts.Stopped(number=15)

    train.judge = note
    status = train.main(["--config=" + sys.argv[1] + ":tiny", "--workdir=" + str(folder / "run"), *sys.argv[3:]])
    try:
        processes.on_main(refuse)
        told = ""
    except UserError as error:
        told = str(error)
    try:
        processes.on_main(stop)
    except interrupts.Stopped as end:
        (folder / f"process{jax.process_index()}").write_text(f"{status}\\n{told}\\n{end.number}")

    with interrupts.listening():
        before = processes.asked_to_stop()
        processes.barrier()
        if jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), 15)
        processes.asked_to_stop()
        processes.barrier()
        (folder / f"asked{jax.process_index()}").write_text(f"{before} {processes.asked_to_stop()}")
"""


def start_processes(folder: Path, count: int, devices_each: int) -> list[subprocess.Popen]:
    folder.mkdir()
    script = textwrap.dedent(GRADIENTS) + textwrap.dedent(JOB)
    overrides = [f"--config.{text}" for text in SHORT.split()]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices_each}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "CLOSURE_JAX_DATA": str(folder / "data"),
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": str(count),
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", script, str(EXPERIMENT), str(folder / "gradients.npz"), *overrides],
            # no compiled programs are kept: one would read what another is still writing
            env=environment | {"JAX_PROCESS_ID": str(number), "JAX_ENABLE_COMPILATION_CACHE": "false"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> dict[str, Path]:
    """Folders of the job on one device, on four, and in two processes of two; what each process printed is in printedN."""
    home = tmp_path_factory.mktemp("jobs")
    layouts = {"one": (1, 1), "four": (1, 4), "two": (2, 2)}
    started = {name: start_processes(home / name, *layout) for name, layout in layouts.items()}
    try:
        for name, job in started.items():
            for number, process in enumerate(job):
                printed, _ = process.communicate(timeout=900)
                assert process.returncode == 0, printed
                (home / name / f"printed{number}").write_text(printed)
    finally:
        for process in (process for job in started.values() for process in job):
            process.kill()
    return {name: home / name for name in started}


def curves(work: WorkDir, phase: str) -> dict[str, list[float]]:
    records = work.records(phase)
    names = [name for name in records[-1] if name not in ("phase", "step", "steps_per_second")]
    return {name: [record[name] for record in records if name in record] for name in names}


def assert_equal_curves(one: WorkDir, other: WorkDir, phase: str) -> None:
    expected, found = curves(one, phase), curves(other, phase)
    assert found.keys() == expected.keys() and len(expected["loss"]) == 10
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, err_msg=f"{phase} {name}")


def assert_equal_gradients(one, other):
    """Within 1e-5 of the whole gradient's size, for what GRADIENTS saves, and losses along it within 2e-3."""
    assert one.files == other.files
    for section in ("autoencoder", "fm_ga", "cs_ga", "mf_ga", "les_cs_physical", "online", "joint", "mp"):
        np.testing.assert_allclose(other[f"curve_{section}"], one[f"curve_{section}"], rtol=2e-3, err_msg=section)
        assert len(set(one[f"curve_{section}"])) == 5
        names = [name for name in one.files if name.startswith(section)]
        size = np.sqrt(sum(np.sum(one[name] ** 2) for name in names))
        difference = np.sqrt(sum(np.sum((one[name] - other[name]) ** 2) for name in names))
        assert difference < 1e-5 * size, section


@pytest.mark.slow
def test_many_devices_have_the_gradients_of_one_and_train_along_its_curves(jobs):
    for layout in ("four", "two"):
        assert_equal_gradients(*(np.load(jobs[name] / "gradients.npz") for name in ("one", layout)))
        for phase in ("autoencoder_vorticity", "autoencoder_closure", "transport"):
            assert_equal_curves(WorkDir(jobs["one"] / "run"), WorkDir(jobs[layout] / "run"), phase)


@pytest.mark.slow
def test_all_processes_stop_where_one_of_them_is_asked_to(jobs):
    for name, count in (("one", 1), ("four", 1), ("two", 2)):
        assert [(jobs[name] / f"asked{number}").read_text() for number in range(count)] == ["False True"] * count


@pytest.mark.slow
def test_process_0_alone_speaks_evaluates_and_fails_for_all(jobs):
    assert "autoencoder_closure: 10 steps" in (jobs["two"] / "printed0").read_text()
    said = (jobs["two"] / "printed1").read_text().splitlines()
    assert [line for line in said if "peer ranks" not in line] == []  # those are Gloo's, whose threads may share a line
    results = WorkDir(jobs["two"] / "run").results()
    assert results["evaluated_by"] == 0 and results["device"].startswith("4 cpu devices")
    own, echoed = ((jobs["two"] / f"process{number}").read_text().split("\n") for number in (0, 1))
    assert own == ["0", "a mistake that process 0 alone can see", "15"]
    assert echoed[0] == "0" and echoed[1].startswith("process 0 has ended") and echoed[2] == "15"


@pytest.mark.slow
def test_checkpoints_of_two_processes_restore_on_one_device(jobs):
    experiment = config.build(WorkDir(jobs["two"] / "run").config())
    params = experiment.template()["params"]
    for phase, training, part in (
        ("autoencoder_closure", experiment.autoencoder_training, "closure"),
        ("transport", experiment.transport_training, "network"),
    ):
        adam = optimiser(training.settings, training.schedule)
        template = TrainState.create(params[part], adam).as_dict()
        trees = {}
        for name in ("one", "two"):
            checkpoints = WorkDir(jobs[name] / "run").checkpoints(phase)
            assert checkpoints.latest() == 10
            trees[name] = checkpoints.restore(template)
            checkpoints.close()
        assert trees["two"]["step"] == 10
        # Adam's moments are averages of gradients; parameters themselves hide the gradients' size
        moments = (np.concatenate([x.ravel() for x in jax.tree.leaves(trees[n]["opt_state"])]) for n in ("one", "two"))
        expected, found = moments
        assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected) and np.linalg.norm(expected) > 0
    model = closure_jax.load(jobs["two"] / "run")
    jax.tree.map(np.testing.assert_array_equal, model.params["network"], trees["two"]["ema"])


# --- how processes are found -----------------------------------------------------------------------------------------


@pytest.fixture
def found(monkeypatch) -> list[dict]:
    """Arguments of jax.distributed.initialize, which is not called; no variable of a cluster is set."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "JAX_", "CUDA_", "TPU_"))]:
        monkeypatch.delenv(name)
    calls: list[dict] = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: calls.append(options))
    return calls


def set_variables(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_one_process_stays_alone(found, monkeypatch):
    processes.start()
    set_variables(monkeypatch, JAX_COORDINATOR_ADDRESS="n1:1234", JAX_NUM_PROCESSES="1", JAX_PROCESS_ID="0")
    processes.start()
    # as in a batch script, which is no job step though it is given the number of tasks
    set_variables(monkeypatch, JAX_COORDINATOR_ADDRESS="", JAX_NUM_PROCESSES="", JAX_PROCESS_ID="", SLURM_NTASKS="4")
    processes.start()
    assert found == [] and processes.is_main()


def test_variables_name_the_processes(found, monkeypatch):
    set_variables(monkeypatch, JAX_COORDINATOR_ADDRESS="[::1]:1234", JAX_NUM_PROCESSES="3", JAX_PROCESS_ID="2")
    processes.start()
    (options,) = found
    del options["cluster_detection_method"]
    assert options == {"coordinator_address": "[::1]:1234", "num_processes": 3, "process_id": 2}


def test_wrong_variables_are_told_in_one_line(found, monkeypatch):
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    for values, named in (
        (("n1:1234", "2", ""), "without JAX_PROCESS_ID"),
        (("n1", "2", "0"), "JAX_COORDINATOR_ADDRESS=n1: expected HOST:PORT"),
        (("n1:70000", "2", "0"), "JAX_COORDINATOR_ADDRESS=n1:70000"),
        (("n1:1234", "two", "0"), "JAX_NUM_PROCESSES=two"),
        (("n1:1234", "2", "2"), "JAX_PROCESS_ID=2: expected the number of this process, from 0 to 1"),
    ):
        set_variables(monkeypatch, **dict(zip(names, values, strict=True)))
        assert named in refusal(processes.start)
    assert found == []


def test_a_slurm_step_starts_with_the_gpus_of_the_task(found, monkeypatch):
    for tasks_per_node, visible, own in (
        ("4(x2)", "0,1,2,3", None),  # jax's choice: the GPU of the task's number on its node
        ("4(x2)", "3", [0]),  # --gpus-per-task=1: each task sees one
        ("1(x8)", "0,1,2,3", [0, 1, 2, 3]),  # a task a node
        ("1(x8)", "", None),
    ):
        set_variables(
            monkeypatch,
            SLURM_STEP_NUM_TASKS="8",
            SLURM_STEP_TASKS_PER_NODE=tasks_per_node,
            CUDA_VISIBLE_DEVICES=visible,
        )
        processes.start()
        options = found.pop()
        assert options["cluster_detection_method"] == "slurm" and options.get("local_device_ids") == own
        assert found == []


def test_progress_is_lines_where_output_is_no_terminal(monkeypatch, capsys):
    for seconds, shown in ((60.0, False), (0.01, True)):
        monkeypatch.setattr(progress, "SECONDS", seconds)
        with progress.bar(8, "transport", "step", done=4) as bar:
            for loss in (0.5, 0.25):
                time.sleep(0.02)
                bar.set_postfix(loss=loss, refresh=False)
                bar.update(2)
        output = capsys.readouterr()
        assert output.err == "" and bool(output.out) == shown
    first, *_, last = output.out.splitlines()
    assert first.startswith("transport: 6 of 8 steps, 00:00 since the start, ") and first.endswith("left, loss=0.5")
    assert last.startswith("transport: 8 of 8 steps, ") and "\r" not in output.out


def test_a_batch_must_divide_over_the_devices_of_all_processes(monkeypatch):
    monkeypatch.setattr(devices, "count", lambda: 8)
    devices.check_batch("transport.batch_size", 16)
    message = refusal(devices.check_batch, "transport.batch_size", 100)
    assert "transport.batch_size=100 does not divide over 8 devices: expected e.g. 96" in message
