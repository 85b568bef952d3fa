"""What a comparison shows, in order: claims, tables with the figures that belong to them, and all settings."""

from collections.abc import Mapping, Sequence

from closure_jax.pages.comparison import figures, holding, latent_size, latents, published, rollout, tables
from closure_jax.pages.comparison.claims import Claim
from closure_jax.pages.comparison.runs import Model, Study
from closure_jax.pages.page import Block, Details, Paragraph, Picture, Section
from closure_jax.pages.results import look_up, measures_version
from closure_jax.pages.tables import Table, markdown_text

_ONE_SEED = (
    "Models with one seed are shown without an interval: between them, differences of one or two percent mean nothing."
)
_SEEDS = (
    "± is half the 95 % t-interval of the mean over seeds, which share the data and differ in initial weights, batches and"
    " samples."
)
_CLAIMS = "Claims of the paper"
_DATA_SECTION = "Training data"
_SIZE_SECTION = "Size of the latent"
_HOLDING_SECTION = "How long a draw is held"
_PROVENANCE = "Provenance"

CAPTIONS = figures.CAPTIONS | rollout.CAPTIONS | holding.CAPTIONS | latent_size.CAPTIONS
"""How to read each figure, by name."""

_FIGURE_PLACES = {  # under which table a figure stands
    "A priori": ("pareto", "settings", "noise_spectra"),
    "A posteriori": ("rollout", "energy_spectra"),
    "Latent spaces": ("latent_geometry",),
}
_LEFT_OUT = {
    "pareto": "no run has an error against the exact mean or a CRPS over the exact one, which takes a known law",
    "settings": "no run has an error over the floor or a spread over the exact one, which takes a known law",
    "noise_spectra": "no run has a spectrum of the exact noise, which takes a known law",
    "rollout": "no run has a rollout",
    "energy_spectra": "no run has a rollout",
    "latent_geometry": "no run has measures of latent geometry",
}
"""Why a figure is missing from its place."""


def draw(models: Sequence[Model], studies: Sequence[Study] = ()) -> dict[str, bytes]:
    """PNG by name of every figure for which the runs have figures, in the order of the page."""

    def known(*measures: str) -> bool:
        return any(model.at(steps, measure) for model in models for steps in model.steps for measure in measures)

    drawn = {}
    if known("excess_error", "crps_ratio"):
        drawn["pareto"] = figures.pareto(models)
    if known("over_floor", "spread_ratio"):
        drawn["settings"] = figures.settings(models)
    if any(figures.noise_ratio(model) is not None for model in models):
        drawn["noise_spectra"] = figures.noise_spectra(models)
    if any(model.curve("a_posteriori", "relative_error").size for model in models):
        drawn["rollout"] = rollout.rollout(models)
    if any(rollout.energy_at_end(model, "model") is not None for model in models):
        drawn["energy_spectra"] = rollout.energy_spectra(models)
    if figures.with_geometry(models):
        drawn["latent_geometry"] = figures.latent_geometry(models)
    if shares := [study for study in studies if study.kind == "data_efficiency"]:
        drawn["data_efficiency"] = figures.data_efficiency(shares)
    if held := holding.lines(studies):
        drawn["holding"] = holding.holding(held)
    if sizes := latent_size.points_of(studies):
        drawn["latent_size"] = latent_size.latent_size(sizes)
    return drawn


def sections(models: Sequence[Model], studies: Sequence[Study], pictures: Mapping[str, bytes]) -> list[Section]:
    """Tables that have rows and their figures, what is known of the runs themselves last."""
    found = tables.model_tables(models) if models else {}
    provenance = found.pop(_PROVENANCE, None)
    if "Statistics" in found:  # runs of before have none
        found["Statistics"] = tables.measured(found["Statistics"])
    if "data_efficiency" in pictures or any(model.of_paper for model in models):
        found["Beside the published figures"] = published.published_table(models)
    if any(model.of_paper or model.latent != "physical" for model in models):
        found["Latent spaces"] = latents.latent_table(models)
    shown = []
    for title, table in found.items():
        blocks: list[Block] = [tables.as_text(table)]
        if title == "A posteriori":
            blocks += [tables.as_text(more) for more in [rollout.rollout_table(models)] if more.rows]
        if title == "Statistics":
            blocks += [tables.as_text(more) for more in [rollout.statistics_table(models)] if more.rows]
        if title == "Latent spaces":
            blocks += [tables.as_text(more) for more in [latents.term_table(models)] if more.rows]
        if table.rows:
            blocks += [_figure(name, pictures) for name in _FIGURE_PLACES.get(title, ())]
            shown.append(Section(title, blocks))
    if "data_efficiency" in pictures:
        shown.append(Section(_DATA_SECTION, [_figure("data_efficiency", pictures)]))
    if "latent_size" in pictures:
        sizes = latent_size.table(latent_size.points_of(studies), latent_size.how_chosen(studies))
        of_sizes = tables.as_text(sizes)
        shown.append(Section(_SIZE_SECTION, [of_sizes, _figure("latent_size", pictures)]))
    if "holding" in pictures:
        shown.append(
            Section(
                _HOLDING_SECTION, [tables.as_text(holding.table(holding.lines(studies))), _figure("holding", pictures)]
            )
        )
    if provenance is not None:
        shown.append(Section(_PROVENANCE, [tables.as_text(provenance)]))
    return shown


def _figure(name: str, pictures: Mapping[str, bytes]) -> Block:
    if name not in pictures:
        return Paragraph(f"{name.replace('_', ' ')}: left out, {_LEFT_OUT[name]}.", missing=True)
    return Picture(name, pictures[name], CAPTIONS[name])


def every_setting(models: Sequence[Model]) -> list[Section]:
    """A folded section with all a priori measures; empty where there are none."""
    table = tables.as_text(tables.settings_table(models))
    unlabelled = Table(table.head, table.rows, table.notes)
    return [Section("Every setting", [Details(table.intro, [unlabelled])])] if table.rows else []


def intro(models: Sequence[Model]) -> str:
    """How many runs and models, what is known of the law, and what an interval means."""
    count = sum(len(model.runs) for model in models)
    floors = [look_up(run.results, "a_priori", "floor") is not None for model in models for run in model.runs]
    law = "The law of the closure is known exactly, so that every measure has a perfect value; no model sees it. "
    if floors and not all(floors):
        law = "Measures against the exact law of the closure are dashes for runs in which it is not known. "
    return (
        f"{count} run{'s' if count != 1 else ''} of {len(models)} model{'s' if len(models) != 1 else ''}, a model being a "
        f"transport process in a latent space. {law if floors else ''}{_older_note(models)}{_seeds_note(models)}"
    )


def _older_note(models: Sequence[Model]) -> str:
    """Says which runs were judged by older measures, which `gather` keeps apart; empty where none was."""
    found = [(run.label, measures_version(run.results)) for model in models for run in model.runs]
    first, second = ([name for name, version in found if version == number] for number in (1, 2))
    notes = ""
    if first:
        notes += (
            f"Judged by an older version of the measures, with an error over the floor and an excess error that are too large by "
            f"what the finite number of samples adds, and without calibration: {', '.join(first)}; --mode=evaluate judges again. "
        )
    if second:
        which = "all" if len(second) == len(found) else ", ".join(second)
        notes += (
            f"Judged by version 2 of the measures, whose conditional smoothness is left out: {which}; --mode=evaluate judges"
            " again. "
        )
    return notes


def _seeds_note(models: Sequence[Model]) -> str:
    counts = {len(model.runs) for model in models}
    notes = [_SEEDS] if max(counts, default=1) > 1 else []
    return " ".join(notes + ([_ONE_SEED] if 1 in counts else []))


def claims_section(models: Sequence[Model], claims: Sequence[Claim]) -> Section:
    """The claims as a table under the introduction."""
    rows = [(claim.title, claim.verdict, claim.sentence) for claim in claims]
    return Section(_CLAIMS, [Paragraph(intro(models)), Table(("claim", "verdict", "by how much"), rows, notes=2)])


def claims_markdown(claims: Sequence[Claim]) -> str:
    """The claims in Markdown, a paragraph each: their sentences are too long for the cells of a table there."""
    parts = [f"## {_CLAIMS}"]
    parts += [f"**{one.title}**: *{one.verdict}*. {markdown_text(one.sentence)}" for one in claims]
    return "\n\n".join(parts) + "\n"
