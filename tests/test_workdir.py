"""The work directory: strict JSON, records that survive a kill, one process at a time, checkpoints that come back the same."""

import json
import math
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from helpers import REPOSITORY, configured, refusal

from closure_jax import config, files, workdir
from closure_jax.errors import UserError
from closure_jax.workdir import WorkDir, folder
from closure_jax.workdir import checkpoints as checkpoints_lib


@pytest.fixture
def work(tmp_path) -> WorkDir:
    found = WorkDir(tmp_path / "run")
    found.path.mkdir()
    return found


def strictly(text: str):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    content = {
        "nan": math.nan,
        "list": [1.5, math.inf, (-math.inf, 2)],
        "array": np.array([[1.0, np.nan], [np.inf, 4.0]]),
        "jax": jnp.array([0.5, jnp.nan]),
        "scalars": [np.float32(np.nan), np.float64(0.25), np.int64(3), np.bool_(True)],
        "kept": [None, True, "nan", 7],
        5: "a key",
    }
    workdir.write_json(tmp_path / "file.json", content)
    assert strictly((tmp_path / "file.json").read_text()) == {
        "nan": None,
        "list": [1.5, None, [None, 2]],
        "array": [[1.0, None], [None, 4.0]],
        "jax": [0.5, None],
        "scalars": [None, 0.25, 3, True],
        "kept": [None, True, "nan", 7],
        "5": "a key",
    }


def test_files_of_anybody_exhaust_nothing_and_run_nothing(tmp_path, monkeypatch):
    file = tmp_path / "file.json"
    file.write_text("[" * 100_000)
    with pytest.raises(UserError, match="is damaged"):
        files.read_json(file, "restore it")
    arrays = tmp_path / "arrays.npz"
    np.savez_compressed(arrays, a=np.zeros(300_000), b=np.arange(3))
    assert set(files.read_npz(arrays)) == {"a", "b"} and arrays.stat().st_size < 5_000
    monkeypatch.setattr(files, "_NPZ", 10**6)
    with pytest.raises(ValueError, match="2400[0-9]* bytes of arrays"):
        files.read_npz(arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        np.savez(arrays, a=np.array([{}], object))
        files.read_npz(arrays)
    np.savez(arrays, a=np.arange(3))
    whole = arrays.read_bytes()
    for damaged in (b"", b"PK", whole[:-30], whole.replace(b"(3,), }        ", b"(3000000000000,), }"[:19])):
        assert damaged != whole
        arrays.write_bytes(damaged)
        with pytest.raises(ValueError):
            files.read_npz(arrays)


def test_nothing_in_the_package_unpickles():
    for module in sorted((REPOSITORY / "closure_jax").rglob("*.py")):
        text = module.read_text()
        assert not re.search(r"\b(pickle|cPickle|dill|cloudpickle|joblib|marshal|shelve)\b(?!=False)", text), module
        assert text.count("np.load(") == len(re.findall(r"np\.load\([^()]*allow_pickle=False\)", text)), module


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "file.json"
    workdir.write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        workdir.write_json(file, {"a": object()})
    workdir.write_json(file.with_name("other.json"), [])
    assert strictly(file.read_text()) == {"a": 1}
    assert {path.name for path in tmp_path.iterdir()} == {"file.json", "other.json", ".digests"}


def test_results_are_none_until_they_are_written(work):
    assert work.results() is None
    work.write_results({"floor": np.float32(0.25), "error": math.nan})
    assert work.results() == {"floor": 0.25, "error": None}


# --- configuration ---------------------------------------------------------------------------------------------------


def test_the_configuration_comes_back(work):
    c = configured("tiny", "diffusion", "mp", "evaluation.steps=3,4", "coupling.kind=fresh")
    c.experiment = "mine"
    work.write_config(c, {"device": "cpu"})
    assert list(config.leaves(work.config())) == list(config.leaves(c))
    assert strictly((work.path / "provenance.json").read_text()) == {"device": "cpu"}


def test_a_folder_without_run_has_no_configuration(work):
    message = refusal(work.config)
    assert f"'{work.path}'" in message and "config.json" in message and "expected the folder of a run" in message


def changed(field: str, value):
    """The configuration of `tiny` with another value, possible or not."""
    c = configured("tiny")
    c.update_from_flattened_dict({field: value})
    return c


def test_a_run_of_another_configuration_is_refused(work):
    work.write_config(configured("tiny"), {})
    for field, value in (("flow.viscosity", 2e-3), ("seed", 1), ("transport.process", "si"), ("preset", "x")):
        message = refusal(work.check, changed(field, value))
        assert field in message and repr(value) in message and "another --workdir" in message
    other = changed("experiment", "fm_ga")
    config.use(other, "latent", "mp")  # whose fields are others
    message = refusal(work.check, other)
    assert "latent.kind = 'ga', asked for 'mp'" in message and "another --workdir" in message


def test_what_does_not_change_training_may_differ(work):
    work.write_config(configured("tiny"), {})
    for field, value in (("evaluation.states", 3), ("sampler.steps", 4), ("data.chunk", 2), ("coupling.period", 1)):
        work.check(changed(field, value))
    work.check(configured("tiny", "flow_matching", "ga", "coupling.kind=fresh"))


def test_what_training_goes_through_may_differ_only_after_it(work):
    through = ("coupling.",)
    work.write_config(configured("tiny"), {})
    assert "coupling.period = 5, asked for 1" in refusal(work.check, changed("coupling.period", 1), through)
    work.check(changed("evaluation.states", 3), through)
    (work.path / "checkpoints" / "closure").mkdir(parents=True)
    work.check(changed("coupling.period", 1), through)


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "checkpoints"])
def test_what_nobody_knows_of_what_it_is_is_refused(work, name):
    (work.path / name).mkdir(parents=True)
    assert f"holds {name} but no config.json" in refusal(work.check, configured("tiny"))


def test_a_path_that_checkpoints_could_not_be_read_from_is_refused(tmp_path):
    for name in ("run[1]", "[a]/run", "r\\n"):
        message = refusal(WorkDir(tmp_path / name).check, configured("tiny"))
        assert "without [..]" in message and name in message
    for name in ("a (1) ?, ü", "a*b", "a]b", "a[b"):
        WorkDir(tmp_path / name).check(configured("tiny"))
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert "in UTF-8" in refusal(WorkDir(tmp_path / "x\udcff").check, configured("tiny"))
    for path in (tmp_path / "round", tmp_path / ("x" * 300), tmp_path / "x\0y"):
        assert "can't be used" in refusal(WorkDir(path).check, configured("tiny"))
    (tmp_path / "file").touch()
    assert f"'{tmp_path / 'file'}' is a file" in refusal(WorkDir(tmp_path / "file" / "run").check, configured("tiny"))


def test_checking_writes_nothing(tmp_path):
    WorkDir(tmp_path / "new").check(configured("tiny"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_refused_as_a_folder(tmp_path):
    (tmp_path / "run").write_text("mine")
    for function in (
        lambda: WorkDir(tmp_path / "run").check(configured("tiny")),
        WorkDir(tmp_path / "run").lock().__enter__,
    ):
        assert f"--workdir={tmp_path / 'run'}" in refusal(function)
    assert (tmp_path / "run").read_text() == "mine"


# --- one process at a time -------------------------------------------------------------------------------------------

HOLDER = """
import fcntl, sys
with open(sys.argv[1], "w") as handle:
    fcntl.flock(handle, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_second_process_is_kept_out_until_the_first_ends(work):
    lock = work.path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "held\n"
            message = refusal(work.lock().__enter__)
            assert f"'{work.path}'" in message and "in use" in message and "wait" in message
        finally:
            process.kill()
    with work.lock():  # a killed process leaves the file, and no lock
        assert lock.exists()


def test_a_second_process_waits_for_a_file_that_the_first_makes(tmp_path):
    lock = tmp_path / "d.h5.lock"
    with files.lock(lock):
        code = "import pathlib, sys\nfrom closure_jax import files\n"
        code += "with files.lock(pathlib.Path(sys.argv[1]), waiting='waits'): print('has it', flush=True)"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(lock)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "waits\n"
        assert process.poll() is None
    assert process.communicate(timeout=60)[0] == "has it\n"


def test_the_lock_makes_the_folder_and_ends_with_its_block(tmp_path):
    work = WorkDir(tmp_path / "a" / "b")
    with work.lock():
        assert work.path.is_dir()
        refusal(WorkDir(work.path).lock().__enter__)
    with pytest.raises(ZeroDivisionError), work.lock():
        raise ZeroDivisionError
    with work.lock():
        pass


# --- wall time -------------------------------------------------------------------------------------------------------


def test_wall_time_adds_up_over_starts_and_counts_what_failed(work, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0, 20.0, 20.5])
    monkeypatch.setattr(folder.time, "perf_counter", lambda: next(clock))
    with work.timed("transport"):
        pass
    with pytest.raises(KeyboardInterrupt), WorkDir(work.path).timed("transport"):
        raise KeyboardInterrupt
    with work.timed("report"):
        pass
    assert work.wall_seconds() == {"transport": 5.0, "report": 0.5}


# --- metrics ---------------------------------------------------------------------------------------------------------


def write_log(work: WorkDir, phase: str, start: int, steps) -> None:
    log = work.metrics(phase, start)
    for step in steps:
        log.write(step, {"loss": 1.0 / step})
    log.close()


def steps_of(work: WorkDir, phase: str) -> list[int]:
    return [record["step"] for record in work.records(phase)]


def test_a_record_is_one_strict_line(work):
    log = work.metrics("transport", 0)
    log.write(5, {"loss": np.float32(0.5), "validation_loss": math.nan})
    lines = (work.path / "metrics.jsonl").read_text().splitlines()  # before it is closed: a kill loses nothing
    log.close()
    assert [strictly(line) for line in lines] == [
        {"phase": "transport", "step": 5, "loss": 0.5, "validation_loss": None}
    ]
    assert list((work.path / "tensorboard" / "transport").iterdir())


def test_without_a_log_there_are_no_records(work):
    assert work.records("transport") == []


def test_a_log_is_cut_to_where_training_resumes_or_starts_again(work):
    write_log(work, "autoencoder_closure", 0, range(5, 45, 5))
    write_log(work, "transport", 0, range(5, 40, 5))
    write_log(work, "transport", 20, range(25, 65, 5))
    assert steps_of(work, "transport") == list(range(5, 65, 5))
    write_log(work, "transport", 0, [5])
    assert steps_of(work, "transport") == [5]
    assert steps_of(work, "autoencoder_closure") == list(range(5, 45, 5))


def test_a_last_line_cut_anywhere_is_dropped_or_kept_whole(work):
    write_log(work, "transport", 0, [5, 10])
    file = work.path / "metrics.jsonl"
    whole = file.read_bytes()
    for end in range(whole.index(b"\n") + 1, len(whole)):
        file.write_bytes(whole[:end])
        assert steps_of(work, "transport") in ([5], [5, 10])
        if end % 4 == 0:  # a resumed log opens a file of TensorBoard's each time, which is slow
            write_log(work, "transport", 10, [15])
            text = file.read_text()
            assert text.endswith("\n") and [strictly(line)["step"] for line in text.splitlines()] in (
                [5, 15],
                [5, 10, 15],
            )


# --- checkpoints -----------------------------------------------------------------------------------------------------


def tree(scale: float = 1.0) -> dict:
    """What training saves, small: parameters, optimiser, moving average."""
    params = {
        "encoder": {"kernel": scale * np.arange(12.0, dtype=np.float32).reshape(3, 4), "bias": np.ones(4, np.float32)},
        "decoder": {"scale": np.float32(scale)},
    }
    opt_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(params)
    return {
        "step": jnp.int32(7),
        "params": params,
        "opt_state": opt_state,
        "ema": jax.tree.map(lambda x: 0.5 * x, params),
    }


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory) -> WorkDir:
    """Checkpoints of steps 20, 40 and 60, which no test changes."""
    found = WorkDir(tmp_path_factory.mktemp("saved") / "run")
    found.path.mkdir()
    checkpoints = found.checkpoints("transport")
    for step in (20, 40, 60):
        checkpoints.save(step, tree(float(step)))
    checkpoints.close()
    return found


@pytest.fixture
def saved(saved_once, tmp_path) -> WorkDir:
    """A copy of those checkpoints."""
    shutil.copytree(saved_once.path, tmp_path / "copy")
    return WorkDir(tmp_path / "copy")


def restore(work: WorkDir, template):
    checkpoints = work.checkpoints("transport")
    try:
        return checkpoints.restore(template)
    finally:
        checkpoints.close()


def test_the_newest_tree_comes_back_as_it_was_saved(saved_once):
    expected = tree(60.0)
    found = restore(saved_once, jax.tree.map(jnp.zeros_like, tree()))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for mine, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(mine, np.ndarray | np.generic) and mine.dtype == np.asarray(theirs).dtype
        np.testing.assert_array_equal(mine, np.asarray(theirs))


def test_the_newest_two_are_kept_and_what_is_half_written_does_not_count(saved):
    folder = saved.path / "checkpoints" / "transport"
    assert {path.name for path in folder.iterdir()} == {"40", "60"}
    (folder / "80.orbax-checkpoint-tmp-1").mkdir()
    assert saved.checkpoints("transport").latest() == 60
    shutil.rmtree(folder / "60")
    np.testing.assert_array_equal(restore(saved, tree())["params"]["decoder"]["scale"], 40.0)


def test_what_is_saved_does_not_change_with_the_tree_that_was_given(work):
    given = tree(1.0)
    checkpoints = work.checkpoints("transport")
    checkpoints.save(1, jax.tree.map(jnp.asarray, given))
    given["params"]["encoder"]["kernel"] += 5
    checkpoints.close()
    np.testing.assert_array_equal(
        restore(work, tree())["params"]["encoder"]["kernel"], tree()["params"]["encoder"]["kernel"]
    )


def test_an_untrained_phase_is_refused_and_makes_no_folder(work):
    assert work.checkpoints("transport").latest() is None
    message = refusal(restore, work, tree())
    assert "'transport'" in message and f"'{work.path}'" in message and "train" in message
    assert list(work.path.iterdir()) == []


def without_a_leaf(t):
    del t["params"]["encoder"]["bias"]


def with_another_leaf(t):
    t["params"]["encoder"]["gain"] = np.ones(4, np.float32)


def with_another_name(t):
    t["params"]["coder"] = t["params"].pop("encoder")


def with_another_optimiser(t):
    t["opt_state"] = optax.sgd(0.1).init(t["params"])


def with_another_shape(t):
    t["params"]["encoder"]["kernel"] = np.zeros((3, 5), np.float32)


def test_a_tree_of_another_structure_is_refused(saved_once):
    changes = (without_a_leaf, with_another_leaf, with_another_name, with_another_optimiser, with_another_shape)
    for change in changes:
        template = tree()
        change(template)
        message = refusal(restore, saved_once, template)
        assert "60" in message and "'transport'" in message and f"'{saved_once.path}'" in message, change
        assert "delete" in message


DAMAGES = [(pattern, how) for pattern in ("_METADATA", "manifest.ocdbt", "d/*") for how in ("emptied", "cut")]
DAMAGES += [("manifest.ocdbt", "deleted"), ("d/*", "deleted")]

# In a process of its own: a read that fails leaves threads of orbax's behind, which is no company for a test runner.
DAMAGER = """
import json, pathlib, shutil, sys
import numpy as np
from closure_jax.errors import UserError
from closure_jax.workdir import WorkDir

work, spoilt = WorkDir(sys.argv[1] + "/run"), WorkDir(sys.argv[1] + "/spoilt")
tree = {f"layer{i}": {"kernel": np.arange(200.0), "bias": np.ones(3)} for i in range(20)}
checkpoints = work.checkpoints("transport")
checkpoints.save(60, tree)
checkpoints.close()
for pattern, how in json.loads(sys.argv[2]):
    shutil.rmtree(spoilt.path, ignore_errors=True)
    shutil.copytree(work.path, spoilt.path)
    for file in (spoilt.path / "checkpoints" / "transport" / "60" / "default").glob(pattern):
        content = file.read_bytes()
        file.unlink()
        if how != "deleted":
            file.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    checkpoints = spoilt.checkpoints("transport")
    try:
        checkpoints.restore(tree)
        print(json.dumps("restored"))
    except UserError as error:
        print(json.dumps(str(error)))
    except Exception as error:
        print(json.dumps(f"not a UserError: {error!r}"))
    checkpoints.close()
"""


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_in_one_short_line_without_a_traceback(tmp_path):
    command = [sys.executable, "-c", DAMAGER, str(tmp_path), json.dumps(DAMAGES)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    for damage, message in zip(DAMAGES, messages, strict=True):
        assert message.startswith("checkpoint 60 of 'transport' in ") and len(message.splitlines()) == 1, damage
        assert "can't be read" in message and "delete that phase's folder" in message, damage
        assert len(message) < 600, damage
    assert "Traceback" not in result.stderr


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(saved, capsys):
    damaged = saved.path / "checkpoints" / "transport" / "60"
    for file in (damaged / "default").glob("d/*"):
        file.write_bytes(b"")
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 40
    said = capsys.readouterr().out
    assert said.startswith("checkpoint 60 of 'transport'") and said.endswith("goes on from checkpoint 40\n")
    checkpoints = saved.checkpoints("transport")
    checkpoints.save(50, tree(50.0))  # the damaged one is in nobody's way
    checkpoints.save(60, tree(61.0))
    checkpoints.close()
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 61


def test_numbers_that_are_not_those_that_were_saved_are_no_checkpoint(saved, monkeypatch, capsys):
    whole = ocp.CheckpointManager.restore

    def flipped(self, step, **options):
        found = whole(self, step, **options)
        found["params"]["encoder"]["bias"][2] += 1e-3 if step == 60 else 0.0
        return found

    monkeypatch.setattr(ocp.CheckpointManager, "restore", flipped)
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 40
    assert "its numbers are not those that were saved" in capsys.readouterr().out


def test_a_checkpoint_of_another_phase_or_step_is_none(saved):
    phase = saved.path / "checkpoints" / "transport"
    (phase / "60").rename(phase / "70")
    shutil.rmtree(phase / "40")
    assert "(it is of step 60, expected 70)" in refusal(restore, saved, tree())
    (phase / "70").rename(phase / "60")
    restore(saved, tree())
    phase.rename(phase.with_name("flow"))
    said = refusal(saved.checkpoints("flow").restore, tree())
    assert "checkpoint 60 of 'flow'" in said and "(it is of phase 'transport', expected 'flow')" in said


def noted(step) -> dict:
    """What Orbax keeps of a checkpoint, ours among it."""
    return json.loads((step / "_CHECKPOINT_METADATA").read_text())


def test_a_closure_of_another_run_is_none(work, tmp_path):
    work.write_config(configured("tiny"), {"run": "mine"})
    for run in (work, WorkDir(tmp_path / "older")):
        checkpoints = run.checkpoints("closure")
        checkpoints.save(0, tree())
        checkpoints.close()
    folder, others = (run.path / "checkpoints" / "closure" for run in (work, WorkDir(tmp_path / "older")))
    assert noted(folder / "0")["custom_metadata"]["run"] == "mine"
    work.checkpoints("closure").restore(tree())
    work.write_provenance({"run": "other"})
    assert "(it is of run 'mine', expected 'other')" in refusal(work.checkpoints("closure").restore, tree())
    shutil.rmtree(folder)
    shutil.copytree(others, folder)
    work.checkpoints("closure").restore(tree())  # a run of before runs had names


def test_a_checkpoint_of_which_nothing_true_is_noted_gives_way_to_the_one_before(saved, capsys):
    step = saved.path / "checkpoints" / "transport" / "60"
    whole = noted(step)
    listed = json.dumps(whole | {"custom_metadata": [1]})
    del whole["custom_metadata"]["sha256"]
    of_step = ["{}", "[]", None, listed, json.dumps(whole)]
    for name, spoilt in (("_CHECKPOINT_METADATA", of_step), ("default/_METADATA", ["null", None])):
        right = (step / name).read_text()
        for content in spoilt:
            (step / name).unlink() if content is None else (step / name).write_text(content)
            assert restore(saved, tree())["params"]["decoder"]["scale"] == 40, (name, content)
            assert "checkpoint 60 of 'transport'" in capsys.readouterr().out
            assert saved.checkpoints("transport").require() == 60
        (step / name).write_text(right)
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 60
    whole["custom_metadata"] = {}
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(whole))
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 60
    assert "has no digest, which release 0.1 left out: it is not checked" in capsys.readouterr().out


def test_a_checkpoint_whose_identity_was_not_kept_yet_is_read(saved):
    step = saved.path / "checkpoints" / "transport" / "60"
    before = noted(step)
    digest = checkpoints_lib._digest(tree(60.0), {})
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(before | {"custom_metadata": {"sha256": digest}}))
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 60
    del before["custom_metadata"]["phase"]
    (step / "_CHECKPOINT_METADATA").write_text(json.dumps(before))
    assert restore(saved, tree())["params"]["decoder"]["scale"] == 40  # it was kept, and is gone
