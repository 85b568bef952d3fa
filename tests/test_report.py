"""The report: complete, self-contained, and made of whatever a run left."""

import base64
import html.parser
import io
import json
import re
import warnings

import matplotlib
import numpy as np
import pytest
from PIL import Image

from closure_jax.errors import UserError
from closure_jax.pages import drawing
from closure_jax.pages.results import coupling_rule
from closure_jax.pages.run import animation, fields, figures
from closure_jax.pages.run.report import write_report

FIGURES = {
    *("training_curves.png", "a_priori_fields.png", "a_priori_spectra.png", "sampler_steps.png", "rollout_scores.png"),
    *("rollout_fields.png", "rollout_spectra.png", "rollout_pdf.png", "rollout_animation.gif"),
    *("rollout_statistics.png", "a_priori_times.png"),
    *("latent_embedding.png", "latent_distances.png", "persistence_diagrams.png", "calibration.png"),
}


@pytest.fixture(autouse=True)
def no_warnings():
    """A report of a long run must not end in a page of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def smooth_fields(rng, *shape, n, cut=3.0):
    """Random periodic fields of unit variance, shape (*shape, n, n)."""
    k = np.hypot(np.fft.fftfreq(n, 1 / n)[:, None], np.fft.rfftfreq(n, 1 / n)[None, :])
    field_hat = np.fft.rfft2(rng.normal(size=(*shape, n, n))) * np.exp(-((k / cut) ** 2))
    field = np.fft.irfft2(field_hat, s=(n, n))
    return (field / field.std()).astype(np.float32)


def make_arrays(n, states=2, samples=3, times=3, frames=12, seed=0):
    """Arrays of a plausible run: a good model, and a solver without closure that decays."""
    rng = np.random.default_rng(seed)
    shells = np.arange(n // 2 + 1)
    spectrum = (np.maximum(shells, 0.5) ** -4.0 * np.exp(-((shells / (n / 5)) ** 2))).astype(np.float32)
    noise = (4e-5 * shells * np.exp(-0.197 * shells**2)).astype(np.float32)
    exact = 0.2 * smooth_fields(rng, states, n=n)
    draws = exact[:, None] + 0.02 * smooth_fields(rng, states, samples, n=n)
    truth, moving = smooth_fields(rng, times, n=n), smooth_fields(rng, n=n)
    moving = np.stack([np.roll(moving, i, axis=0) for i in range(frames)])
    bins = np.linspace(-4, 4, 41)
    pdf = np.tile(np.where(np.abs(bins) < 3.5, np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi), 0), (times, 1))
    scores = {}
    for name, factor in (("truth", 1.0), ("model", 1.1), ("no_closure", 0.4)):
        scores |= {f"energy_{name}": np.tile(factor * spectrum / np.maximum(shells, 1) ** 2, (times, 1))}
        scores |= {f"enstrophy_{name}": np.tile(factor * spectrum, (times, 1)), f"pdf_{name}": factor * pdf}
        scores |= {f"mean_enstrophy_{name}": factor * spectrum, f"mean_flux_{name}": factor * np.sin(shells / n * 6)}
        scores |= {f"mean_density_{name}": factor * pdf[0]}
    return (
        geometry_arrays(rng)
        | scores
        | {
            "a_priori_time": np.linspace(20, 40, states),
            "a_priori_vorticity": smooth_fields(rng, states, n=n),
            "a_priori_truth": exact + 0.02 * smooth_fields(rng, states, n=n),
            "a_priori_exact_mean": exact,
            "a_priori_samples": draws,
            "a_priori_mean": exact + 0.003 * smooth_fields(rng, states, n=n, cut=6),
            "a_priori_spread": 0.018 + 0.001 * smooth_fields(rng, states, n=n),
            "a_priori_steps": np.array(10),
            "state_time": np.linspace(20, 40, 24),
            "state_error": 0.1 + 0.01 * rng.random(24),
            "state_floor": np.full(24, 0.098),
            "state_spread": np.full(24, 0.018),
            "closure_spectrum_truth": spectrum + noise,
            "closure_spectrum_model": spectrum + 0.8 * noise,
            "noise_spectrum_exact": noise,
            "noise_spectrum_steps": np.array([1, 10, 50]),
            "noise_spectrum_model": np.array([0.2, 0.7, 0.95])[:, None] * noise + 1e-11,
            "field_time": np.linspace(1, 20, times),
            "field_truth": truth,
            "field_model": truth + 0.02 * smooth_fields(rng, times, n=n),
            "field_no_closure": 0.3 * smooth_fields(rng, times, n=n),
            "pdf_vorticity": bins,
            "mean_density_vorticity": bins,
            "animation_time": np.linspace(0, 20, frames),
            "animation_truth": moving,
            "animation_model": moving + 0.01 * smooth_fields(rng, frames, n=n),
            "start_time": np.array(30.0),
            "domain_length": np.array(1.0),
            "noise_standard_deviation": np.array(0.02),
        }
    )


def geometry_arrays(rng, trajectories=2, snapshots=5):
    """Arrays of latents that keep the geometry but for a little noise."""
    arrays = {"geometry_time": np.linspace(20, 40, snapshots)}
    for field in ("vorticity", "closure"):
        turn = np.linspace(0, 3, snapshots) + np.arange(trajectories)[:, None]
        plane = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        distances = rng.uniform(0.1, 2, size=45)
        classes = np.array([[0, 0, 0.3], [0, 0, 0.4], [1, 0.4, 0.9]])
        shown = {"embedding_full": plane, "embedding_latent": 1.02 * plane, "explained": np.array([0.6, 0.7])}
        shown |= {"distances": np.stack([distances, 1.1 * distances])}
        shown |= {"persistence_full": classes, "persistence_latent": classes * (1, 1, 1.01)}
        arrays |= {f"geometry_{field}_{name}": array for name, array in shown.items()}
    return arrays


def calibration_measures(narrow):
    """Of samples whose spread is `narrow` times what it should be."""
    share = 1 + (1 / narrow - 1) * (np.linspace(-1, 1, 10) ** 2 - 0.41)
    return {
        "coverage": {level: narrow * float(level) / 100 for level in ("50", "80", "90")},
        "spread_over_error": narrow,
        "energy_score": 0.0141 / narrow,
        "rank_histogram": {"share": (share / share.sum()).tolist(), "flatness": 1 / narrow**2, "p_value": 0.25},
        "deviation_by_shell": [0.002] * 17,
    }


def make_results():
    by_steps = {
        str(steps): {
            "relative_error": 0.1 * (1 + 0.1 / steps),
            "over_floor": 1 + 0.1 / steps,
            "excess_error": 0.04 / steps**0.5,
            "spread_ratio": 1 - 1 / (1 + steps),
            "noise_spectrum_error": 0.5 / steps,
            "crps_ratio": 1 + 0.2 / steps,
            "milliseconds_per_sample": 0.6 * steps,
            **calibration_measures(steps / (1 + steps)),
        }
        for steps in (1, 2, 5, 10, 50)
    }
    time = np.arange(21.0)
    return {
        "experiment": "fm_ga <script>alert(1)</script>",
        "preset": "small",
        "seed": 0,
        "revision": "0123abc",
        "device": "cpu & friends",
        "wall_seconds": {"simulate": 61.5, "autoencoder_vorticity": 4000.0, "transport": 300.25},
        "autoencoder": {
            "vorticity": {"relative_error": 2.6e-3, "regulariser_weight": 0.31},
            "closure": {"relative_error": 1.4e-2, "regulariser_weight": 4e-9},
        },
        "a_priori": {"floor": 0.1, "states": 10, "samples": 100, "times": [20.0, 40.0], "by_steps": by_steps},
        "latent_geometry": {
            "states": 400,
            "neighbours": 10,
            "conditional_smoothness": 0.987,
            "vorticity": {"distance_correlation": 0.9876, "condition_number": 184.0},
            "closure": {"distance_correlation": 0.9765, "condition_number": 6.12},
            "topology": {"vorticity": {"bottleneck_h1": 0.0123}, "closure": {"bottleneck_h1": 0.0234}},
        },
        "a_posteriori": {
            "time": time.tolist(),
            "relative_error": (0.002 * time).tolist(),
            "relative_error_floor": (0.0004 * time).tolist(),
            "coverage": {level: [None, *[0.011 * float(level)] * 20] for level in ("50", "80", "90")},
            "spread_over_error": [None, *np.linspace(1, 1.4, 20).tolist()],
            "relative_error_no_closure": (1.1 * (1 - np.exp(-time / 4))).tolist(),
            "spread": (0.0006 * time**0.5).tolist(),
            "spread_truth": (0.0005 * time**0.5).tolist(),
            "crps": (0.0004 * time**0.5).tolist(),
            "spectrum_error": 0.1234,
            "spectrum_error_floor": 0.0345,
            "enstrophy_flux_error": 0.0567,
            "tail_error": 0.678,
            "decorrelation_time_truth": 4.56,
            "scales_truth": {"reynolds": 4321.0, "cfl": 0.0871, "turnover_time": 6.54},
            "finite_fraction": 1.0,
            "seconds_per_time_unit": 0.8,
            "states": 2,
            "members": 8,
            "sampler_steps": 4,
            "hold": 5,
            "coupling": {"kind": "ar1", "period": 5, "correlation_steps": 12.5, "mean": "antithetic"},
        },
    }


def make_metrics(records=40):
    lines = []
    for phase, scale in (("autoencoder_vorticity", 0.1), ("autoencoder_closure", 0.4), ("transport", 1.0)):
        for i in range(records):
            record = {"phase": phase, "step": 10 * (i + 1), "loss": scale / (i + 1) ** 0.7, "learning_rate": 1e-3}
            lines.append(record | ({"validation_loss": 1.2 * record["loss"]} if i % 5 == 4 else {}))
    return lines


def write_run(directory, arrays, results, metrics, config=None):
    (directory / "config.json").write_text(json.dumps(config or {"model": {"width": 32, "note": "<b>&"}}))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    (directory / "results.json").write_text(json.dumps(results))
    np.savez(directory / "arrays.npz", **arrays)
    return directory


def with_nulls(tree):
    """Every leaf null, lists kept as lists of nulls."""
    if isinstance(tree, dict):
        return {key: with_nulls(value) for key, value in tree.items()}
    return [None] * len(tree) if isinstance(tree, list) else None


@pytest.fixture
def coarse(monkeypatch):
    """Small pictures, where only their making counts."""
    monkeypatch.setattr(drawing, "DPI", 30)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A complete report of a 32^2 run: (work directory, text of the page)."""
    directory = write_run(tmp_path_factory.mktemp("run"), make_arrays(32), make_results(), make_metrics(records=400))
    before = dict(matplotlib.rcParams)
    path = write_report(directory)
    assert dict(matplotlib.rcParams) == before
    return directory, path.read_text(encoding="utf-8")


def test_every_figure_is_a_file_and_embedded(page):
    directory, text = page
    assert {path.name for path in (directory / "figures").iterdir()} == FIGURES
    embedded = [base64.b64decode(data) for data in re.findall(r'src="data:image/(?:png|gif);base64,([^"]+)"', text)]
    assert sorted(embedded) == sorted(path.read_bytes() for path in (directory / "figures").iterdir())
    assert "left out" not in text


def test_the_page_needs_nothing_from_outside(page):
    _, text = page
    prose = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    assert "http" not in prose
    assert not re.search(r"<(script|link|iframe|object)|@import|url\(", prose)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', text))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', text))


def test_text_is_escaped_and_tags_are_balanced(page):
    _, text = page
    assert "&lt;script&gt;alert(1)" in text and "cpu &amp; friends" in text and "&lt;b&gt;&amp;" in text
    open_tags = []

    class Balance(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert tag != "script"
            if tag not in ("meta", "img"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balance().feed(text)
    assert not open_tags


def test_key_figures_are_on_the_page(page):
    _, text = page
    for shown in (
        "0.0026",
        "1.01",
        "0.909",
        "at the last time, 20 time units",
        "4.00 · 10⁻⁹",
        "1 h 12 min",
        "4321",
        "0.0871",
    ):
        assert shown in text, shown
    rule = "a new sample each 5 time steps by the rule ar1 (correlation_steps 12.5, mean antithetic)"
    assert rule in re.sub(r"\s+", " ", text)


def test_the_rule_of_an_older_run_is_that_of_its_configuration():
    assert coupling_rule({}, {}) == "held"
    assert coupling_rule({"a_posteriori": None}, {"coupling": {"kind": "scaled", "period": 5}}) == "scaled"


def test_sections_come_in_the_order_of_the_argument(page):
    _, text = page
    assert re.findall(r"<h2[^>]*>([^<]+)", text) == [
        *(
            "Summary",
            "Training",
            "A priori",
            "Latent geometry",
            "A posteriori",
            "Calibration",
            "Configuration",
            "Wall time",
        ),
    ]


@pytest.mark.slow
def test_values_that_are_missing_do_not_break_it(tmp_path, coarse):
    arrays = make_arrays(16, states=1, samples=1, times=1)
    for results in (with_nulls(make_results()), {}, {"a_priori": {"by_steps": {"3": None}}}):
        path = write_report(write_run(tmp_path, arrays, results, make_metrics(records=1)))
        text = path.read_text(encoding="utf-8")
        assert "–" in text and "None" not in re.sub(r"base64,[^\"]+", "", text)


LAW_ARRAYS = ("a_priori_exact_mean", "noise_spectrum_exact", "noise_standard_deviation")
LAW_MEASURES = ("over_floor", "excess_error", "spread_ratio", "noise_spectrum_error", "crps_ratio")


@pytest.mark.slow
def test_where_nobody_knows_the_law_its_measures_are_dashes(tmp_path, unrendered):
    """All figures are drawn, without what needs the law, and spread and CRPS are shown in their own unit; a measure that is null
    is as one that is absent."""
    arrays, results = make_arrays(16), make_results()
    for name in LAW_ARRAYS:
        del arrays[name]
    results["a_priori"]["floor"] = None
    by_steps = results["a_priori"]["by_steps"]
    for steps, values in by_steps.items():
        kept = {name: value for name, value in values.items() if name not in LAW_MEASURES}
        by_steps[steps] = kept | {"spread": 0.01875, "crps": 0.01125}
    absent = write_report(write_run(tmp_path, arrays, results, make_metrics())).read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "figures").iterdir()} == FIGURES and "left out" not in absent
    assert "Nobody knows the law" in absent and "no exact mean or deviation" in absent
    for values in by_steps.values():
        values |= dict.fromkeys(LAW_MEASURES)
        values |= {"r2": 0.8125, "transfer_back": 1.375}
    results["a_priori"] |= {"transfer_forward_truth": -2.25, "transfer_back_truth": 1.4375}
    null = write_report(write_run(tmp_path, {"a_priori_mean": arrays["a_priori_mean"]}, results, [])).read_text("utf-8")
    assert all(text in null for text in ("R²", "0.812", "1.375", "transfer back", "2.250", "1.43"))
    for text in (absent, null):
        row = re.search(r'<tr><td class="name">1</td>(.*?)</tr>', text).group(1)
        cells = re.findall(r"<td[^>]*>([^<]*)", row)
        assert cells[:6] == ["0.110", "–", "–", "–", "–", "–"] and {"0.0187", "0.0112"} <= set(cells)


@pytest.mark.slow
def test_a_problem_without_a_solver_has_no_rollout_and_the_page_says_so(tmp_path, unrendered):
    """Pictures of an earlier report are gone."""
    results = make_results()
    del results["a_posteriori"]
    directory = write_run(tmp_path, make_arrays(16), results, make_metrics())
    (directory / "figures").mkdir()
    (directory / "figures" / "rollout_pdf.png").write_bytes(b"of an earlier report")
    text = write_report(directory).read_text(encoding="utf-8")
    assert "no solver for the closure to run in" in text and "None" not in re.sub(r"base64,[^\"]+", "", text)
    assert {name for name in FIGURES if "rollout" not in name} == {
        path.name for path in (tmp_path / "figures").iterdir()
    }


def test_baselines_stand_beside_the_model_at_three_times(tmp_path, unrendered):
    results = make_results()
    time = np.arange(21.0)
    scores = {"crps": (0.003 * time).tolist(), "finite_fraction": 0.75, "seconds_per_time_unit": 0.0625}
    scores |= {"spectrum_error": 0.9, "stable_fraction": 0.125}
    results["a_posteriori"]["baselines"] = {
        "none": {"relative_error": (0.05 * time).tolist(), "spread": [0.0] * 21, **scores},
        "deterministic_<exact>": {"relative_error": (0.004 * time).tolist(), "spread": None, **scores},
    }
    text = write_report(write_run(tmp_path, {}, results, [])).read_text(encoding="utf-8")
    rows = {
        row[0]: row[1:]
        for row in (re.findall(r"<td[^>]*>([^<]*)", line) for line in re.findall(r"<tr><td.*</tr>", text))
        if len(row) == 8
    }
    assert rows["no closure"] == ["0.0500", "0.500", "1", "0", "0.0600", "0.750", "0.0625"]
    assert rows["deterministic &lt;exact&gt;"] == ["0.00400", "0.0400", "0.0800", "–", "0.0600", "0.750", "0.0625"]
    assert rows["model"][:3] == ["0.00200", "0.0200", "0.0400"]
    assert rows["truth"][:4] == ["0.000400", "0.00400", "0.00800", "0.00224"]
    statistics = [row for row in re.findall(r"<tr><td.*</tr>", text) if "two true ensembles" in row or "0.125" in row]
    cells = [re.findall(r"<td[^>]*>([^<]*)", row) for row in statistics]
    assert cells[0] == ["two true ensembles", "0.0345", "–", "–", "4.560", "–"]
    assert cells[1] == ["no closure", "0.900", "–", "–", "–", "0.125"]


def test_calibration_is_a_table_by_steps_and_no_column_elsewhere(tmp_path, unrendered):
    """Measures that are lists or objects have no column; results of older versions have a sentence and no figure."""
    results = make_results()
    text = write_report(write_run(tmp_path, {}, results, [])).read_text(encoding="utf-8")
    place = text.index('id="calibration"')
    before, section = text[:place], text[place:]
    assert (
        "Coverage: share of the points" in section
        and "rank histogram" not in before
        and "[" not in re.sub(r"<style.*?</style>|base64,[^\"]+", "", before, flags=re.S)
    )
    rows = [re.findall(r"<td[^>]*>([^<]*)", line) for line in re.findall(r"<tr><td.*</tr>", section)]
    assert rows[0] == ["1", "0.250", "0.400", "0.450", "0.500", "0.0282", "4", "0.250"]
    for values in results["a_priori"]["by_steps"].values():
        for name in calibration_measures(1):
            del values[name]
    text = write_report(write_run(tmp_path, {}, results, [])).read_text(encoding="utf-8")
    assert "has no calibration" in text and not (tmp_path / "figures" / "calibration.png").exists()


def test_a_log_axis_has_few_ticks_inside_its_limits():
    ticks = drawing.LogTicks(most=7)
    for low, high in ((4.5e-6, 7e-5), (1e-12, 0.02), (0.98, 1.04), (0.3, 300), (1e-300, 1e300)):
        found = np.array(ticks.tick_values(low, high))
        assert (
            2 <= len(found) <= 7
            and len(drawing.LogTicks(most=3).tick_values(low, high)) <= 3
            and found.min() >= low * 0.999
            and found.max() <= high * 1.001
        )
    assert list(ticks.tick_values(0, 0)) == []
    assert [drawing.log_text(value, plain=False) for value in (1e-6, 5e-5, 1.0)] == ["10⁻⁶", "5 · 10⁻⁵", "10⁰"]


@pytest.mark.slow
def test_a_run_that_diverged_is_still_drawn(tmp_path, coarse):
    arrays = make_arrays(16, times=2, frames=3)
    for name in ("field_model", "animation_model", "energy_model", "enstrophy_model", "pdf_model"):
        arrays[name] = np.array(arrays[name], dtype=np.float32)
        arrays[name][-1] = np.inf
        arrays[name][0] = np.nan
    arrays["animation_model"][1] = 3e38
    write_report(write_run(tmp_path, arrays, make_results(), make_metrics()))
    assert {path.name for path in (tmp_path / "figures").iterdir()} == FIGURES


@pytest.mark.slow
def test_a_missing_array_leaves_out_its_figure_and_says_so(tmp_path, unrendered):
    arrays = make_arrays(16)
    del arrays["pdf_model"]
    text = write_report(write_run(tmp_path, arrays, make_results(), [])).read_text(encoding="utf-8")
    assert "rollout_pdf: left out, arrays.npz has no &#39;pdf_model&#39;" in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == FIGURES - {
        "rollout_pdf.png",
        "training_curves.png",
    }


@pytest.mark.slow
def test_without_the_topology_packages_the_page_says_what_to_install(tmp_path, unrendered):
    arrays, results = make_arrays(16), make_results()
    results["latent_geometry"]["topology"] = {"missing": "install closure_jax[topology] for persistent homology"}
    text = write_report(write_run(tmp_path, arrays, results, make_metrics())).read_text(encoding="utf-8")
    assert "persistence_diagrams: left out, install closure_jax[topology] for persistent homology." in text
    assert "bottleneck" not in text and "0.988" in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == FIGURES - {"persistence_diagrams.png"}


def test_latents_that_could_not_be_measured_say_why(tmp_path, unrendered):
    results = make_results() | {"latent_geometry": {"missing": "latents of the closure are not finite"}}
    text = write_report(write_run(tmp_path, {}, results, [])).read_text(encoding="utf-8")
    assert "Left out: latents of the closure are not finite." in text and "latent_embedding" not in text


def test_records_of_a_resumed_run(tmp_path, coarse):
    directory = write_run(tmp_path, {}, {}, make_metrics(2) + make_metrics(3))
    with (directory / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "transp')
    write_report(directory)
    with (directory / "metrics.jsonl").open("a") as file:
        file.write("\n{}\n")
    with pytest.raises(UserError, match="line 16"):
        write_report(directory)


def test_results_that_are_not_written_yet_can_be_given(tmp_path):
    directory = write_run(tmp_path, {}, {"experiment": "stale"}, [])
    (directory / "results.json").unlink()
    text = write_report(directory, {"experiment": "fresh"}).read_text(encoding="utf-8")
    assert "<h1>fresh</h1>" in text
    with pytest.raises(FileNotFoundError, match="results.json"):
        write_report(directory)


def test_animation_keeps_its_frames_and_its_limit():
    used = ("animation_", "start_time")
    arrays = {name: values for name, values in make_arrays(64, frames=80).items() if name.startswith(used)}
    content = animation.rollout_animation(arrays, limit_bytes=800_000)
    assert len(content) < 800_000
    assert Image.open(io.BytesIO(content)).n_frames == 60


def test_the_animation_does_not_start_with_an_empty_difference():
    """Model and truth start at one state: what a preview shows is the first frame at which they differ."""
    arrays = make_arrays(32, frames=5)
    arrays["animation_model"] = np.copy(arrays["animation_truth"])
    arrays["animation_model"][1:] += 0.5
    content = animation.rollout_animation(arrays)
    image = Image.open(io.BytesIO(content))
    panel = np.asarray(image.convert("RGB")).astype(int)[40:200, -200:-40]
    assert image.n_frames == 4
    assert (panel[..., 0] - panel[..., 2]).min() > 10


def test_animation_colours_grow_with_the_value_and_y_points_up():
    """A field that grows with y: red (positive) at the top of the panel, blue at its bottom."""
    arrays = make_arrays(16, frames=1)
    arrays["animation_truth"] = np.broadcast_to(np.linspace(-1, 1, 16), (1, 16, 16)).astype(np.float32)
    frame = np.asarray(Image.open(io.BytesIO(animation.rollout_animation(arrays))).convert("RGB")).astype(int)
    red_less_blue = frame[:, 60, 0] - frame[:, 60, 2]
    assert red_less_blue[40] > 50 and red_less_blue[240] < -50


def test_color_limit_is_a_round_bound():
    assert fields.color_limit(np.array([-0.1234, np.nan, 0.05])) == pytest.approx(0.13)
    assert fields.color_limit(np.zeros(3)) == 1.0
    assert fields.color_limit(np.array([np.inf])) == 1.0


def test_training_and_validation_of_an_autoencoder_are_one_quantity(monkeypatch):
    monkeypatch.setattr(drawing, "rendered", lambda figure: figure)
    with_term = [{"step": step, "loss": 9.0, "reconstruction": 1.0, "validation_loss": 1.1} for step in (1, 2)]
    without = [{"step": step, "loss": 2.0, "validation_loss": 2.1} for step in (1, 2)]
    figure = figures.training_curves({"autoencoder_vorticity": with_term, "transport": without})
    shown = [[line.get_ydata()[-1] for line in axes.lines] for axes in figure.axes]
    assert shown == [[1.0, 1.1], [2.0, 2.1]]
    assert [axes.get_ylabel() for axes in figure.axes] == ["squared error of reconstruction", "loss"]
