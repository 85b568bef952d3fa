"""The command line: a mistake ends with status 2, one line that names it, and nothing written."""

import io
import subprocess
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import REPOSITORY, built, configured, refusal

from closure_jax import config, pretrained, workdir
from closure_jax.commands import cli, holding, origins, transfer
from closure_jax.commands import train as main
from closure_jax.coupling import Fresh
from closure_jax.data import dataset, generate
from closure_jax.errors import UserError
from closure_jax.evaluation import evaluate
from closure_jax.parallel import devices
from closure_jax.training import online, programs

EXPERIMENT = REPOSITORY / "experiments" / "fm_ga.py"
TINY = f"--config={EXPERIMENT}:tiny"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty current folder, into which data would go as well."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CLOSURE_JAX_DATA", str(here / "data"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(generate, "write", unreached)
    monkeypatch.setattr(programs, "train", unreached)
    return here


def unreached(*arguments):
    """Stands for what takes long and must not begin."""
    raise AssertionError("what should have been refused was begun")


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything under a folder: files with their bytes, folders with None."""
    found = folder.rglob("*")
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in found}


def refused(capsys, *arguments: str) -> str:
    """The one line on stderr with which these arguments are refused, before anything is written."""
    before = content(Path.cwd())
    capsys.readouterr()
    status = main.main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("closure_jax: error: ") and "Traceback" not in lines[0]
    assert content(Path.cwd()) == before
    return lines[0]


# --- options ---------------------------------------------------------------------------------------------------------


WRONG = [
    ([], ["--config is missing", "expected --config=experiments/NAME.py"]),
    (["--mode=evaluate"], ["--config is missing", "expected"]),
    (["--config="], ["--config", "expected"]),
    (["--config=nowhere.py:tiny"], ["'nowhere.py'", "expected experiments/NAME.py"]),
    (["--config=."], ["'.'", "expected experiments/NAME.py"]),
    ([f"--config={REPOSITORY / 'pyproject.toml'}"], ["pyproject.toml", "expected experiments/NAME.py"]),
    ([f"--config={EXPERIMENT}:tinny"], ["'tinny'", "expected paper, medium, small, tiny", "nearest is 'tiny'"]),
    ([f"--config={'x' * 300}.py:tiny"], ["xxx", "expected"]),
    ([TINY, "--workdri=w"], ["--workdri=w", "--help"]),
    ([TINY, "--work=w"], ["--work=w", "--help"]),  # no abbreviations: they change meaning with the next option
    ([TINY, "--workdir=a", "--workdir", "b"], ["--workdir is given twice, as a and as b", "expected"]),
    ([TINY, "--config=other.py:tiny"], ["--config is given twice", "as other.py:tiny", "expected"]),
    ([TINY, "--config.seed=1", "--config.seed=2"], ["--config.seed is given twice, as 1 and as 2", "expected"]),
    ([TINY, "left_over"], ["left_over", "--help"]),
    ([TINY, "--dry_run=yes"], ["--dry_run", "yes"]),
    ([TINY, "--mode=judge"], ["--mode", "judge", "train", "evaluate"]),
    ([TINY, "--workdir"], ["--workdir", "expected one argument"]),
    ([TINY, f"--workdir={'x' * 300}"], ["--workdir", "xxx", "expected"]),
    ([TINY, "--config.flow.viscocity=1"], ["--config.flow.viscocity", "nearest is 'flow.viscosity'"]),
    ([TINY, "--config.flow.viscosity=thick"], ["--config.flow.viscosity=thick", "expected a number; now 0.001"]),
    ([TINY, "--config.flow.viscosity=-1"], ["--config.flow.viscosity=-1.0", "expected a number that is not negative"]),
    ([TINY, "--config.flow.viscosity"], ["--config.flow.viscosity", "expected --config.flow.viscosity=VALUE"]),
    ([TINY, "--config.transport.process=fm\n"], ["--config.transport.process=fm", "expected one of"]),
    ([TINY, "--config.seed=1\n2"], ["--config.seed=1", "expected"]),
]


def test_a_wrong_option_is_refused(capsys):
    for arguments, named in WRONG:
        for more in ([], ["--dry_run"]):
            line = refused(capsys, *arguments, *more)
            assert all(words in line for words in named), line


def test_the_cpu_is_refused_where_an_accelerator_is_required(capsys, monkeypatch):
    monkeypatch.setattr(devices, "has_accelerator", lambda: False)
    line = refused(capsys, TINY, "--require_accelerator")
    assert "--require_accelerator" in line and "CPU" in line and "expected" in line


def test_the_preset_follows_the_device_where_none_is_given(monkeypatch):
    for accelerator, preset in ((False, "small"), (True, "paper")):
        monkeypatch.setattr(devices, "has_accelerator", lambda answer=accelerator: answer)
        experiment, work = main.resolve(*main._parse([f"--config={EXPERIMENT}"]))
        assert experiment.preset == preset and work.path == Path("runs") / f"fm_ga-{preset}"


def test_help_lists_the_options_and_ends_well(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--config", "--workdir", "--mode", "--dry_run", "--require_accelerator"))


@pytest.mark.slow
def test_a_refusal_is_the_status_of_the_process():
    result = subprocess.run(
        [sys.executable, "-m", "closure_jax"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.splitlines() == [
        "closure_jax: error: --config is missing: expected --config=experiments/NAME.py[:PRESET]"
    ]


def test_what_the_terminal_can_not_show_is_escaped(monkeypatch):
    for encoding, name, shown in (("ascii", "ü", "\\xfc"), ("utf-8", "\udcff", "\\udcff")):
        shows = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shows, encoding=encoding))
        assert cli.run(lambda name=name: print(name, flush=True)) == 0
        assert shows.getvalue().decode() == f"{shown}\n"


# --- an experiment file of the user's --------------------------------------------------------------------------------

BASE = "from closure_jax import config\ndef get_config(preset='paper'):\n    c = config.base(preset)\n"


MISTAKES = [
    ("def get_config(:\n", ["line 1", "SyntaxError"]),
    ("\x00", ["null byte"]),
    ("import a_package_that_nobody_has\n", ["line 1", "a_package_that_nobody_has"]),
    ("def config(preset):\n    pass\n", ["has no get_config(preset)"]),
    ("def get_config():\n    pass\n", ["get_config", "TypeError"]),
    ("get_config = 3\n", ["TypeError"]),
    (BASE, ["NoneType", "expected a ConfigDict"]),
    (BASE + "    return config.to_dict(c)\n", ["dict", "expected a ConfigDict"]),
    (BASE + "    raise ValueError('two\\nlines')\n", ["line 4", "ValueError", "two lines"]),
    (BASE + "    import sys; sys.exit(3)\n", ["line 4", "SystemExit"]),
    (BASE + "    c.seed = 'first'\n    return c\n", ["line 4", "seed", "first"]),
    (BASE + "    c.flow.viscosity = -1.0\n    return c\n", ["--config.flow.viscosity=-1.0", "expected"]),
    (BASE + "    c.flow.viscosity = None\n    return c\n", ["--config.flow.viscosity=None", "expected"]),
    (BASE + "    c.flow = None\n    return c\n", ["flow", "expected"]),
    (
        BASE + "    c.evaluation.steps = (1, 'x')\n    return c\n",
        ["--config.evaluation.steps=(1, 'x')", "expected"],
    ),
    (
        BASE + "    c.evaluation.steps = (1, 2.5)\n    return c\n",
        ["--config.evaluation.steps=(1, 2.5)", "expected"],
    ),
    (
        BASE + "    c.flow.viscocity = 1.0\n    return c\n",
        ["line 4", 'Did you mean "viscosity" instead of "viscocity"'],
    ),
    (BASE + "    del c.flow.viscosity\n    return c\n", ["line 4", "locked"]),
    (
        BASE + "    with c.unlocked():\n        del c.flow.viscosity\n    return c\n",
        ["--config.flow.viscosity is missing", "expected a number"],
    ),
]
"""(the file, what the refusal names)."""


def test_a_mistake_in_an_experiment_is_refused(capsys, tmp_path):
    file = tmp_path / "mine.py"
    for text, named in MISTAKES:
        file.write_text(text)
        line = refused(capsys, f"--config={file}:tiny")
        assert all(words in line for words in named), line
        assert str(file) in line or "--config." in line


def test_a_mistake_is_found_in_a_file_that_is_named_from_here(capsys, folder):
    (folder / "mine.py").write_text(BASE + "    raise ValueError('no')\n")
    assert "'mine.py', line 4: ValueError: no" in refused(capsys, "--config=mine.py:tiny")


def test_an_experiment_is_named_after_its_file(tmp_path):
    (tmp_path / "mine.py").write_text(BASE + "    return c\n")
    assert config.load(f"{tmp_path / 'mine.py'}:tiny").experiment == "mine"
    assert config.load(f"{tmp_path / 'mine.py'}", "small").preset == "small"


# --- work directories ------------------------------------------------------------------------------------------------


def finished(folder: Path, *overrides: str) -> Path:
    """A work directory with the configuration of a run, and nothing else."""
    folder.mkdir(parents=True)
    workdir.WorkDir(folder).write_config(configured("tiny", "flow_matching", "ga", *overrides), {})
    return folder


def test_there_is_nothing_to_judge_in_an_empty_folder(capsys, folder):
    for options, name in (([], "runs/fm_ga-tiny"), (["--workdir=w"], "w")):
        assert name in refused(capsys, TINY, "--mode=evaluate", *options)
        (folder / name).mkdir(parents=True)
        line = refused(capsys, TINY, "--mode=evaluate", *options)
        assert "no config.json" in line and "expected the folder of a run" in line


def test_there_is_nothing_to_judge_before_training_ends(capsys, folder):
    finished(folder / "w")
    line = refused(capsys, TINY, "--mode=evaluate", "--workdir=w")
    assert "'closure' has no checkpoint in 'w'" in line and "train" in line


def test_a_file_is_no_work_directory(capsys, folder):
    (folder / "w").write_text("mine")
    for options in (["--workdir=w"], ["--workdir=w", "--mode=evaluate"], ["--workdir=w/deeper"]):
        line = refused(capsys, TINY, *options)
        assert options[0].removeprefix("--workdir=") in line and "expected" in line
    assert "--workdir=w/deeper" in line and (folder / "w").read_text() == "mine"


def test_a_run_of_another_configuration_is_not_overwritten(capsys, folder):
    finished(folder / "w")
    for more in ([], ["--dry_run"]):
        line = refused(capsys, TINY, "--workdir=w", "--config.flow.viscosity=2e-3", *more)
        assert "'w'" in line and "flow.viscosity = 0.001" in line and "0.002" in line and "another --workdir" in line
        assert "another --workdir" in refused(capsys, f"--config={EXPERIMENT}:small", "--workdir=w", *more)


def test_what_is_judged_may_differ_from_the_run(folder):
    finished(folder / "w")
    given = ["--config.evaluation.steps=3", "--config.sampler.steps=4", "--config.data.chunk=2"]
    given += ["--config.coupling.kind=fresh"]
    e, _ = main.resolve(*main._parse([TINY, "--workdir=w", *given]))
    assert e.evaluation.steps == (3,) and e.sampler.steps == 4 and e.data.chunk == 2 and isinstance(e.coupling, Fresh)


def test_judging_keeps_the_configuration_of_the_run(capsys, folder):
    finished(folder / "w", "seed=5")
    e, _ = main.resolve(*main._parse([TINY, "--workdir=w", "--mode=evaluate", "--config.evaluation.states=2"]))
    assert e.seed == 5 and e.evaluation.states == 2
    line = refused(capsys, TINY, "--workdir=w", "--mode=evaluate", "--config.seed=6")
    assert "--config.seed=6" in line and "evaluation.*" in line
    for earlier in ("evaluation.rollout_hold", "coupling.period"):  # both names of a field
        e, _ = main.resolve(*main._parse([TINY, "--workdir=w", "--mode=evaluate", f"--config.{earlier}=1"]))
        assert e.coupling.period == 1


def test_an_evaluation_that_fails_leaves_the_settings_of_the_results_that_are_there(folder, monkeypatch):
    finished(folder / "w")
    before = (folder / "w" / "config.json").read_bytes()
    e, work = main.resolve(*main._parse([TINY, "--workdir=w", "--mode=evaluate", "--config.evaluation.states=2"]))

    def fails(*_):
        raise UserError("no room")

    monkeypatch.setattr(evaluate, "run", fails)
    with pytest.raises(UserError, match="no room"):
        main.judge(e, None, None, work, {})
    assert (folder / "w" / "config.json").read_bytes() == before


def test_a_run_is_judged_as_what_it_is(capsys, folder):
    finished(folder / "w")
    for other in (f"--config={REPOSITORY / 'experiments' / 'cs_physical.py'}:tiny", f"--config={EXPERIMENT}:small"):
        assert "holds a run of fm_ga:tiny" in refused(capsys, other, "--workdir=w", "--mode=evaluate")
    e, _ = main.resolve(*main._parse([f"--config={EXPERIMENT}", "--workdir=w", "--mode=evaluate"]))
    assert e.preset == "tiny"
    assert "--workdir is empty" in refused(capsys, TINY, "--workdir=")


def test_batches_that_do_not_divide_over_the_devices_are_told_first(capsys, folder, monkeypatch):
    monkeypatch.setattr(main.devices, "count", lambda: 2)
    for section in ("autoencoder", "transport"):
        line = refused(capsys, TINY, "--workdir=w", f"--config.{section}.batch_size=15")
        assert f"--config.{section}.batch_size=15 does not divide over 2 devices" in line
    main._check_batches(
        built("tiny", "flow_matching", "physical", "autoencoder.batch_size=15")
    )  # there it trains nothing


def test_a_configuration_without_its_parts_is_refused(capsys, folder):
    (folder / "own.py").write_text(
        "import ml_collections\n\n\ndef get_config(preset):\n    return ml_collections.ConfigDict()\n"
    )
    assert "get_config returned one without 'experiment'" in refused(capsys, "--config=own.py:tiny")


def test_what_can_not_be_a_piece_of_an_axis_is_refused(capsys):
    for name in (":x", ".foo:Bar", "os:sep"):
        assert f"--config.network.kind={name}" in refused(capsys, TINY, f"--config.network.kind={name}")
    held, path = "closure_jax.coupling.rules:Held", "closure_jax.transport.paths:FlowMatching"
    axes = [field for field in config.sections.selectors(configured("tiny")) if field != "coupling.kind"]
    assert len(axes) == 9
    for field, piece in (*((axis, held) for axis in axes), ("coupling.kind", path), ("network.kind", path)):
        line = refused(capsys, TINY, f"--config.{field}={piece}", "--dry_run")
        assert f"--config.{field}={piece} has no " in line and ": expected a class like " in line, line
    line = refused(capsys, TINY, "--config.evaluation.measures=math:sqrt", "--dry_run")
    assert "--config.evaluation.measures=math:sqrt: expected a function of samples and truth" in line


def test_a_module_that_can_not_be_imported_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("SyntaxError", "def (:"), ("NameError", "nothing"), ("SystemExit", "raise SystemExit(0)")):
        (tmp_path / f"fails_by_{name}.py").write_text(text)
        line = refused(capsys, TINY, f"--config.network.kind=fails_by_{name}:Piece", "--dry_run")
        assert f"module 'fails_by_{name}' can't be imported ({name}: " in line


def test_a_fork_that_was_stopped_while_it_copied_begins_again(capsys, folder, monkeypatch):
    source = finished(folder / "old")
    (source / "checkpoints/transport/60").mkdir(parents=True)
    given = [TINY, f"--config.data.path={authors_file(folder / 'fields.h5')}", "--workdir=new", "--fork=old"]
    copy = workdir.WorkDir.fork

    def stopped(*arguments):
        copy(*arguments)
        raise UserError("stopped")

    monkeypatch.setattr(programs, "train", lambda run: (_ for _ in ()).throw(UserError("trained")))
    monkeypatch.setattr(workdir.WorkDir, "fork", stopped)
    assert main.main(given) == 2 and "stopped" in capsys.readouterr().err
    monkeypatch.setattr(workdir.WorkDir, "fork", copy)
    assert main.main(given[:-1]) == 2 and "expected --fork=old again" in capsys.readouterr().err
    assert main.main(given) == 2 and "trained" in capsys.readouterr().err
    assert (folder / "new/checkpoints/transport/60").is_dir()
    (source / "metrics.jsonl").write_text("{\n{}\n")
    assert "metrics.jsonl" in refused(capsys, *given[:-2], "--workdir=other", "--fork=old")


def test_a_folder_with_provenance_alone_gets_its_configuration_before_training(capsys, folder, monkeypatch):
    given = [TINY, f"--config.data.path={authors_file(folder / 'fields.h5')}", "--workdir=w"]
    monkeypatch.setattr(programs, "train", lambda run: (_ for _ in ()).throw(UserError("trained")))
    assert main.main(given) == 2 and "trained" in capsys.readouterr().err
    work = workdir.WorkDir("w")
    before = work.provenance()
    (work.path / "config.json").unlink()
    assert main.main(given) == 2 and "trained" in capsys.readouterr().err
    assert work.config().seed == 0 and work.provenance()["run"] == before["run"]


def test_a_run_that_is_called_as_a_closure_that_ships_is_not_taken_for_it(folder):
    pretrained.opened("cs_ga")
    finished(folder / "cs_ga")
    assert "ships with the package and a run" in refusal(pretrained.opened, "cs_ga")
    for run in ("./cs_ga", Path("cs_ga")):
        assert "ships" not in refusal(pretrained.opened, run)  # it is the run, which is not trained


def test_a_spoilt_config_json_is_refused(capsys, folder):
    file = finished(folder / "w") / "config.json"
    for text in (b"{", b"", b"[]", b"3", b"\xff\xfe", b'{"seed": "first"}', b'{"rotation": 1}'):
        file.write_bytes(text)
        for mode in ("train", "evaluate"):
            assert "config.json" in refused(capsys, TINY, "--workdir=w", f"--mode={mode}")


def test_what_only_looks_like_a_run_is_refused(folder):
    """Of records that nothing vouches for: those of an earlier release, or written by hand."""
    said = refusal(config.schema.typed, "flow.viscosity", 10**400, float)
    assert said.startswith("--config.flow.viscosity=1000") and said.endswith(" is a int: expected a number")
    assert "expected numbers like" in refusal(config.schema.typed, "x", [10**400], tuple[float, ...])
    now = types.SimpleNamespace(checksum="a" * 64, path="data.h5")
    work = workdir.WorkDir(folder / "w")
    assert "(checksum 5, those of now" in refusal(origins.check_same_data, {"data_checksum": 5}, now, work)


def test_spoilt_records_of_a_run_are_refused_before_anything_is_done(capsys, folder):
    path = finished(folder / "w")
    for name in ("results.json", "wall_seconds.json", "provenance.json"):
        whole = (path / name).read_bytes() if (path / name).is_file() else None
        for text in (b"{", b"[1]", b"\xff\xfe"):
            (path / name).write_bytes(text)
            line = refused(capsys, TINY, "--workdir=w")
            assert f"'w/{name}' is damaged: expected it as it was written; " in line
        (path / name).write_bytes(whole) if whole else (path / name).unlink()


def test_a_work_directory_in_use_is_refused(capsys, folder):
    path = finished(folder / "w")
    with workdir.WorkDir(path).lock():
        line = refused(capsys, TINY, "--workdir=w")
    assert "'w'" in line and "in use" in line


def test_a_run_that_is_at_work_is_not_forked(capsys, folder, monkeypatch):
    source = finished(folder / "old")
    given = [TINY, f"--config.data.path={authors_file(folder / 'fields.h5')}", "--workdir=new", "--fork=old"]
    source_run, new = workdir.WorkDir(source), workdir.WorkDir(folder / "new")
    with source_run.lock():
        assert "a run is at work in 'old'" in refused(capsys, *given)
        said = refusal(origins.fork, new, source_run, built("tiny"))  # one that began meanwhile
        assert "wait until it ends, or stop it" in said and not new.path.exists()
    copy = workdir.WorkDir.fork

    def copied(work, source):
        assert "in use" in refusal(source_run.lock().__enter__)  # nor does it begin while it is copied
        with source.still():  # another fork may
            copy(work, source)

    monkeypatch.setattr(workdir.WorkDir, "fork", copied)
    monkeypatch.setattr(programs, "train", lambda run: (_ for _ in ()).throw(UserError("trained")))
    assert main.main(given) == 2 and "trained" in capsys.readouterr().err
    with source_run.lock():  # a fork that has its copy needs no more of it
        assert main.main(given) == 2 and "trained" in capsys.readouterr().err


def test_a_fork_takes_the_phases_of_another_run_and_says_in_what_it_differs(capsys, folder, monkeypatch):
    source = finished(folder / "old")
    for name in ("transport/60/data", "closure/0/data", "autoencoder_closure/40.orbax-checkpoint-tmp/data"):
        (source / "checkpoints" / name).parent.mkdir(parents=True)
        (source / "checkpoints" / name).write_text(name)
    log = workdir.WorkDir(source).metrics("transport", 0)
    log.write(5, {"loss": 1.0})
    log.close()

    def stop(run):
        raise UserError("trained")

    monkeypatch.setattr(programs, "train", stop)
    given = [TINY, f"--config.data.path={authors_file(folder / 'fields.h5')}", "--config.transport.steps=80"]
    for began in ("new", "the same command continues"):
        assert main.main([*given, "--workdir=new", "--fork=old"]) == 2
        out, err = capsys.readouterr()
        assert err == "closure_jax: error: trained\n"
        assert ("transport.steps: 60 there, 80 here" in out) == (began == "new")
    made = folder / "new" / "checkpoints"
    assert {path.name for path in made.glob("*/*")} == {"60"}
    assert (made / "transport/60/data").read_text() == "transport/60/data"
    assert workdir.WorkDir(folder / "new").records("transport") == [{"phase": "transport", "step": 5, "loss": 1.0}]
    assert workdir.WorkDir(folder / "new").provenance()["forked_from"] == "old"
    finished(folder / "other")
    sized = workdir.WorkDir(folder / "other").checkpoints("transport")
    sized.save(60, {"bias": np.zeros(3, np.float32)})
    sized.close()
    for options, said in (
        ([*given, "--workdir=sized", "--fork=other"], "is of other sizes (an array has shape (3,), expected"),
        ([*given, "--workdir=new", "--fork=nowhere"], "'nowhere' has no config.json"),
        ([TINY, "--workdir=old", "--fork=old"], "--fork=old: expected another run"),
        ([*given, "--workdir=new", "--fork=other"], "holds a run that did not begin so"),
        ([TINY, "--workdir=new", "--fork=old", "--mode=evaluate"], "--fork=old: expected no --mode=evaluate"),
        (
            [*given[:-1], "--config.transport.steps=30", "--workdir=few", "--fork=old"],
            "'old' has done 60 steps, asked for 30",
        ),
    ):
        assert said in refused(capsys, *options)


# --- data ------------------------------------------------------------------------------------------------------------


def fields(name: str, trajectories: int, n: int = 32) -> np.ndarray:
    """White noise, as weak a vorticity that the closure is its noise alone, which has the deviation of `tiny`'s law."""
    size = 1e-3 if name == "vorticity" else built("tiny").problem.law(np.zeros((1, 32, 32), np.float32)).deviation
    return (size * np.random.default_rng(0).standard_normal((40 * trajectories, n, n))).astype(np.float32)


def own_file(path: Path, times: np.ndarray) -> Path:
    """The same in our schema, at given times."""
    arrays = {
        f"{split}/{field}": fields(name, count).reshape(count, 40, 32, 32)
        for split, count in (("train", 3), ("test", 2))
        for field, name in (("vorticity", "vorticity"), ("closure", "nonlinear"))
    }
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file["time"] = times
        in_order = (arrays[f"{split}/{field}"] for split in dataset.SPLITS for field in dataset.FIELDS)
        file.attrs.update(schema=dataset.SCHEMA, checksum=dataset.checksum_of(in_order))
    return path


def authors_file(path: Path, n: int = 32, **changes) -> Path:
    """Fields for `tiny` in the authors' layout: 3 training trajectories and 2 test trajectories of 40 snapshots."""
    arrays = {
        f"{split}_{name}_64": fields(name, count, n)
        for split, count in (("train", 3), ("test", 2))
        for name in ("vorticity", "nonlinear")
    }
    with h5py.File(path, "w") as file:
        for name, array in (arrays | changes).items():
            if array is not None:
                file[name] = array
    return path


def test_an_unusable_data_file_is_refused(capsys, tmp_path):
    file = tmp_path / "fields.h5"

    def other_layout():
        with h5py.File(file, "w") as made:
            made["omega"] = np.zeros(3)

    def zeros(count: int, *names: str):
        return dict.fromkeys(names, np.zeros((count, 32, 32), np.float32))

    train, test = ("train_vorticity_64", "train_nonlinear_64"), ("test_vorticity_64", "test_nonlinear_64")
    not_finite = {"test_nonlinear_64": np.full((80, 32, 32), np.nan, np.float32)}
    cases = [
        (lambda: None, ["does not exist", "expected an HDF5 file", "--config.data.path"]),
        (file.mkdir, ["expected an HDF5 file", "--config.data.path"]),
        (lambda: file.write_text("vorticity, closure\n1.0, 2.0\n"), ["can't be read"]),
        (lambda: file.write_bytes(authors_file(file).read_bytes()[:50_000]), ["can't be read"]),
        (other_layout, ["schema", "train_vorticity_64", "expected"]),
        (lambda: authors_file(file, n=16), ["16^2", "expected --config.data.resolution=16"]),
        (lambda: authors_file(file, **not_finite), ["not finite", "expected finite"]),
        (lambda: authors_file(file, **dict.fromkeys(test)), ["no test_vorticity_64", "expected"]),
        (
            lambda: authors_file(file, **zeros(81, train[0])),
            ["81", "train_vorticity", "40", "expected", "--config.data.burn_in"],
        ),
        (lambda: authors_file(file, **zeros(40, *train)), ["1 training trajectories", "expected at least 2"]),
        (
            lambda: authors_file(file, **{name: fields(name.split("_")[1], 1) for name in test}),
            ["1 test trajectories", "--config.evaluation.rollout_states", "expected"],
        ),
        (lambda: authors_file(file, **zeros(120, *train)), ["0 everywhere", "expected fields that vary"]),
        (
            lambda: authors_file(file, **{train[1]: fields("nonlinear", 3).astype(complex)}),
            ["train closure of type complex", "expected float"],
        ),
        (
            lambda: authors_file(file, **{train[1]: fields("nonlinear", 3).astype(int)}),
            ["train closure of type int", "expected float"],
        ),
        (
            lambda: authors_file(file, **{test[0]: fields("nonlinear", 2), test[1]: fields("vorticity", 2)}),
            ["32 test states", "expected pairs of this flow", "exchanged"],
        ),
        (
            lambda: authors_file(file, **{train[0]: fields("nonlinear", 3), train[1]: fields("vorticity", 3)}),
            ["32 train states", "expected pairs of this flow"],
        ),
        (
            lambda: authors_file(file, **{train[1]: np.append(fields("nonlinear", 2), fields("vorticity", 1), 0)}),
            ["32 validation states", "expected pairs of this flow"],
        ),
        (lambda: own_file(file, np.linspace(1, 3, 40)), ["40 snapshots from t = 1 to 3", "40 from 1.05 to 3"]),
        (lambda: own_file(file, np.ones(40)), ["time of shape (40,)", "ascending"]),
        (lambda: own_file(file, np.arange(1.0, 4.0)), ["3 times of 40 snapshots"]),
    ]
    for make, named in cases:
        if file.is_dir():
            file.rmdir()
        make()
        line = refused(capsys, TINY, "--workdir=w", f"--config.data.path={file}")
        assert str(file) in line and all(words in line for words in named), line


def test_too_few_trajectories_to_fit_the_coupling_to_are_refused_before_anything_is_made(capsys, tmp_path):
    train = ("train_vorticity_64", "train_nonlinear_64")
    file = authors_file(tmp_path / "fields.h5", **{name: fields(name.split("_")[1], 2) for name in train})
    for kind, field in (("ar1", "correlation_steps=-1"), ("matern", "memory_steps=")):
        for data in ("data.train_trajectories=1", f"data.path={file}"):  # of a file's two trajectories one validates
            line = refused(capsys, TINY, f"--config.coupling.kind={kind}", f"--config.{data}")
            assert f"--config.coupling.{field}: 1 training trajectories of 40 snapshots, expected at least 2" in line
    main.resolve(*main._parse([TINY, "--config.coupling.kind=ar1"]))


def test_other_data_than_a_run_began_with_are_refused(capsys, folder, tmp_path):
    data = authors_file(tmp_path / "fields.h5")
    given = [TINY, "--workdir=w", f"--config.data.path={data}"]
    c = configured("tiny", "flow_matching", "ga", f"data.path={data}")
    (folder / "w").mkdir()
    workdir.WorkDir(folder / "w").write_config(c, {"data_checksum": "0" * 64})
    capsys.readouterr()
    before = {name: text for name, text in content(folder).items() if ".lock" not in name}
    assert main.main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other data" in line and "000000000000" in line and "expected the same" in line
    assert {name: text for name, text in content(folder).items() if ".lock" not in name} == before


def test_a_run_is_not_asked_about_another_flow_or_rule_with_other_data_nor_beside_other_results(
    capsys, folder, monkeypatch
):
    trained, run = built("tiny"), workdir.WorkDir(folder / "run")
    with run.lock():
        run.write_config(trained.config, {"data_checksum": "0" * 64})
    run.write_results({"a_priori": {"by_steps": {}}})
    monkeypatch.setattr(pretrained, "opened", lambda where: (None, trained))
    now = types.SimpleNamespace(path=Path("fields.h5"), checksum="f" * 64)
    monkeypatch.setattr(origins, "data_of", lambda experiment: now)
    capsys.readouterr()
    assert transfer.main([str(run.path), "--config.flow.viscosity=2e-3"]) == 2
    line = capsys.readouterr().err
    assert (
        "other data (checksum 000000000000, those of now in 'fields.h5' have ffffffffffff): expected the same" in line
    )
    assert not (folder / "run-transfer").exists()
    assert "other data" in refusal(holding._data, {str(run.path): trained})
    (folder / "other" / "case").mkdir(parents=True)
    workdir.WorkDir(folder / "other" / "case").write_results({"fitted": 1.0})
    line = refusal(transfer.transfer, run.path, ["flow.viscosity=2e-3"], folder / "other")
    assert f"'{folder / 'other' / 'case'}' holds results of no transfer, expected a folder of cases alone" in line
    run.write_provenance({"data_checksum": now.checksum})
    assert holding._data({str(run.path): trained}) is now


def test_a_start_that_is_not_there_or_another_than_before_is_refused_before_data_are_made(capsys, folder):
    online = f"--config={EXPERIMENT.with_name('cs_ga_online.py')}:small"
    line = refused(capsys, online, "--workdir=w", "--config.program.start=nowhere")
    assert "'nowhere' is no closure that ships" in line and "expected" in line
    before = {"started_from": "0123456789ab"}
    line = refusal(origins.check_same_start, before, "ba9876543210", workdir.WorkDir("w"))
    assert "0123456789ab" in line and "ba9876543210" in line and "expected the same" in line
    for known in ({}, {"started_from": "ba9876543210"}):
        origins.check_same_start(known, "ba9876543210", workdir.WorkDir("w"))


def test_training_numbers_that_no_phase_reads_are_said(capsys):
    asked = ["autoencoder.steps=9", "autoencoder.warmup_steps=2", "transport.steps=9", "autoencoder.width=16"]
    for latent, said in (("ga", 0), ("joint", 2), ("physical", 2)):
        known = [text for text in asked if latent != "physical" or "width" not in text]
        experiment = built("tiny", "flow_matching", latent, *known)
        assert main._unread(experiment, known) == asked[:said]
    started = built("tiny", "score", "ga", "program.kind=online", "program.start=cs_ga")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            online, "_loaded", lambda start, experiment: types.SimpleNamespace(params=experiment.template()["params"])
        )
        assert main._unread(started, ["program.steps=9", *asked]) == asked[:3]
    joint = f"--config={EXPERIMENT.with_name('fm_joint.py')}:tiny"
    main.main([joint, "--config.autoencoder.steps=9", "--dry_run"])
    assert "--config.autoencoder.steps=9: not read here" in capsys.readouterr().out


def test_a_data_folder_that_cannot_be_made_is_refused(capsys, folder, monkeypatch):
    (folder / "data").write_text("mine")
    line = refused(capsys, TINY, "--workdir=w")
    assert "data" in line and "expected" in line


# --- what a run says first -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_run_prints_fields_and_phases_and_writes_nothing(capsys, folder):
    assert main.main([TINY, "--dry_run", "--config.seed=7", "--workdir=w"]) == 0
    output, errors = capsys.readouterr()
    assert errors == "" and content(folder) == {}
    lines = output.splitlines()
    assert lines[0] == f"closure_jax on {devices.describe()}, preset tiny, work directory w"
    c = configured("tiny", "flow_matching", "ga", "seed=7")
    printed = {line.strip() for line in lines}
    assert {f"{name} = {value!r}" for name, value in config.leaves(c)} <= printed
    phases = [line.split() for line in lines[lines.index("phases") + 2 :]]
    names = ["data", "autoencoder_vorticity", "autoencoder_closure", "transport", "a_priori", "a_posteriori"]
    assert [words[0] for words in phases[: len(names)]] == names
    # 8 trajectories of 40 snapshots in 600 steps; 40 steps of 16 fields twice, 60 of 16
    assert [words[1:3] for words in phases[:4]] == [["320", "600"], ["640", "40"], ["640", "40"], ["960", "60"]]
    assert all("GiB" in words for words in phases[: len(names)])


def test_a_run_says_first_where_it_runs_and_what(capsys):
    main.main([TINY, "--config.data.path=nowhere.h5"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == f"closure_jax on {devices.describe()}, preset tiny, work directory runs/fm_ga-tiny"


def test_a_stopped_run_says_that_the_same_command_continues(capsys, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(main, "run", stop)
    assert main.main([TINY]) == 130
    assert capsys.readouterr().err.splitlines() == ["closure_jax: stopped; the same command continues"]
