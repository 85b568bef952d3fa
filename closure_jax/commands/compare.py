"""`./launch.sh compare DIR... --output=DIR`: finished runs on one page, in tables, and against the paper's claims."""

import argparse
import html
import pathlib
import sys
from collections.abc import Mapping, Sequence

from closure_jax.commands import cli
from closure_jax.errors import UserError
from closure_jax.pages import page
from closure_jax.pages.comparison import claims as claims_lib
from closure_jax.pages.comparison import figures as comparison_figures
from closure_jax.pages.comparison import published
from closure_jax.pages.comparison import runs as comparison
from closure_jax.pages.comparison import tables as comparison_tables
from closure_jax.pages.comparison.runs import Model
from closure_jax.pages.comparison.tables import Table

_ONE_SEED = (
    "Models with one seed are shown without an interval: between them, differences of one or two percent mean nothing."
)
_SEEDS = "± is half the 95 % t-interval of the mean over seeds, which differ in data, initial weights and samples."


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser("closure_jax compare", "Put finished runs beside each other and against the paper's claims.")
    parser.add_argument("directories", nargs="*", metavar="DIR", type=pathlib.Path, help="work directories, studies")
    parser.add_argument("--output", metavar="DIR", type=pathlib.Path, default="comparison", help="default comparison/")
    parser.add_argument("--docs", metavar="FILE.md", type=pathlib.Path, help="write the page in Markdown here as well")
    return parser.parse_args(arguments)


def compare(directories: Sequence[pathlib.Path], output: pathlib.Path, docs: pathlib.Path | None = None) -> None:
    """Writes table.md, table.csv, compare.html, results.md, figures/ and results/ into a folder.

    Args:
      directories: work directories of finished runs, and folders with a study.json.
      output: folder to write to; made where it is not there.
      docs: Markdown file to write results.md to as well, with its pictures in results/ beside it.
    Raises:
      UserError: an input that can't be read, or an output that can't be used; nothing is written.
    """
    _check_output(output, docs)
    runs, studies = comparison.read(directories)
    models = comparison.gather(runs)
    claims = claims_lib.claims(models, studies)
    tables = _tables(models)
    pictures = comparison_figures.draw(models, studies)
    markdown = _markdown(models, claims, tables, pictures)
    texts = {
        output / "table.md": _table_page(tables | {"Every setting": comparison_tables.settings_table(models)}),
        output / "table.csv": comparison_tables.to_csv(models),
        output / "compare.html": _html(models, claims, tables, pictures),
        output / "results.md": markdown,
    }
    folders = [output / "figures", output / "results"]
    if docs is not None:
        texts[docs] = markdown
        folders.append(docs.parent / "results")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in comparison_figures.CAPTIONS:  # an earlier comparison may have had more
            (folder / f"{name}.png").unlink(missing_ok=True)
        for name, picture in pictures.items():
            (folder / f"{name}.png").write_bytes(picture)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        print(f"written: {path}")


def _check_output(output: pathlib.Path, docs: pathlib.Path | None) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file: expected a folder, which is made where it is not there")
    if (output / "config.json").exists() or (output / "study.json").exists():
        raise UserError(
            f"--output={output} is the folder of a run or study: expected another, for the comparison alone"
        )
    if docs is not None and (docs.suffix != ".md" or docs.is_dir()):
        raise UserError(f"--docs={docs}: expected a Markdown file, as in --docs=docs/results.md")
    if docs is not None and (docs.parent / "results").exists() and not (docs.parent / "results").is_dir():
        raise UserError(f"--docs={docs}: '{docs.parent / 'results'}' is a file, expected a folder for its pictures")


def _tables(models: Sequence[Model]) -> dict[str, Table]:
    """All tables that have rows, by title, in the order of the page."""
    tables = comparison_tables.model_tables(models) if models else {}
    provenance = {"Provenance": tables.pop("Provenance")} if models else {}
    tables["Beside the published figures"] = published.published_table(models)
    latent = comparison_tables.latent_table(models)
    return tables | ({"Latent spaces": latent} if latent.rows else {}) | provenance


def _seeds_note(models: Sequence[Model]) -> str:
    counts = {len(model.runs) for model in models}
    notes = [_SEEDS] if max(counts, default=1) > 1 else []
    return " ".join(notes + ([_ONE_SEED] if 1 in counts else []))


def _intro(models: Sequence[Model]) -> str:
    count = sum(len(model.runs) for model in models)
    return (
        f"{count} run{'s' if count != 1 else ''} of {len(models)} model{'s' if len(models) != 1 else ''}, a model being a "
        "transport process in a latent space. The law of the closure is known exactly, so that every measure has a perfect "
        f"value; no model sees it. {_seeds_note(models)}"
    )


_FIGURE_PLACES = {  # under which table a figure stands
    "A priori": ("pareto", "settings", "noise_spectra"),
    "A posteriori": ("rollout", "energy_spectra"),
    "Latent spaces": ("latent_geometry",),
}
_DATA_SECTION = "Training data"


def _sections(tables: Mapping[str, Table], pictures: Mapping[str, bytes]) -> dict[str, tuple[Table | None, list[str]]]:
    """Table and figures of each section, by title."""
    sections = {
        title: (table, [name for name in _FIGURE_PLACES.get(title, ()) if name in pictures])
        for title, table in tables.items()
    }
    provenance = {"Provenance": sections.pop("Provenance")} if "Provenance" in sections else {}
    if "data_efficiency" in pictures:
        sections[_DATA_SECTION] = (None, ["data_efficiency"])
    return sections | provenance


def _table_page(tables: Mapping[str, Table]) -> str:
    parts = [f"## {title}\n\n{table.intro}\n\n{comparison_tables.markdown(table)}" for title, table in tables.items()]
    return "\n".join(parts)


def _markdown(
    models: Sequence[Model],
    claims: Sequence[claims_lib.Claim],
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
) -> str:
    """The page in Markdown, pictures by relative path."""
    parts = ["# Results", "Made by `./launch.sh compare`: no figure on this page was typed by hand.", _intro(models)]
    parts.append("## Claims of the paper")
    parts += [f"**{claim.title}**: *{claim.verdict}*. {claim.sentence}" for claim in claims]
    for title, (table, names) in _sections(tables, pictures).items():
        parts.append(f"## {title}")
        parts += [] if table is None else [table.intro, comparison_tables.markdown(table).rstrip()]
        for name in names:
            caption = " ".join(comparison_figures.CAPTIONS[name].split())
            parts += [f"![{name.replace('_', ' ')}](results/{name}.png)", f"*{caption}*"]
    return "\n\n".join(parts) + "\n"


def _html(
    models: Sequence[Model],
    claims: Sequence[claims_lib.Claim],
    tables: Mapping[str, Table],
    pictures: Mapping[str, bytes],
) -> str:
    """The page that opens without a network, pictures embedded."""
    rows = [(claim.title, claim.verdict, claim.sentence) for claim in claims]
    sections = {
        "Claims of the paper": f"<p>{_intro(models)}</p>" + page.table(("claim", "verdict", "by how much"), rows, 2)
    }
    for title, (table, names) in _sections(tables, pictures).items():
        shown = "" if table is None else _html_table(table)
        for name in names:
            shown += page.figure(pictures[name], name.replace("_", " "), comparison_figures.CAPTIONS[name])
        sections[title] = shown
    settings = comparison_tables.settings_table(models)
    if settings.rows:
        sections["Every setting"] = f"<details><summary>{settings.intro}</summary>{_html_table(settings)}</details>"
    facts = {"models": len(models), "runs": sum(len(model.runs) for model in models)}
    return page.document("Comparison", facts, sections)


def _html_table(table: Table) -> str:
    rows = comparison_tables.text_rows(table)
    return f"<p>{html.escape(table.intro)}</p><div class=wide>{page.table(table.head, rows, table.notes)}</div>"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m closure_jax.compare`; returns the exit status."""

    def command() -> None:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        compare(options.directories, options.output, options.docs)

    return cli.run(command, stopped="stopped")


if __name__ == "__main__":
    sys.exit(main())
