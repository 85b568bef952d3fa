"""`./launch.sh compare DIR... --output=DIR`: finished runs on one page, in tables, and against the paper's claims."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from closure_jax import files
from closure_jax.commands import cli
from closure_jax.errors import UserError
from closure_jax.pages import page
from closure_jax.pages.comparison import claims as claims_lib
from closure_jax.pages.comparison import content, reading, runs, summaries, tables
from closure_jax.pages.tables import Table, markdown_text


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = cli.Parser("closure_jax compare", "Put finished runs beside each other and against the paper's claims.")
    parser.add_argument(
        "directories", nargs="*", metavar="DIR", type=cli.path, help="work directories, summaries, studies"
    )
    parser.add_argument("--output", metavar="DIR", type=cli.path, default="comparison", help="default comparison/")
    parser.add_argument("--docs", metavar="FILE.md", type=cli.path, help="write the page in Markdown here as well")
    return parser.options(arguments)


def compare(directories: Sequence[pathlib.Path], output: pathlib.Path, docs: pathlib.Path | None = None) -> None:
    """Writes table.md, table.csv, compare.html, results.md, figures/ and results/ into a folder.

    Args:
      directories: work directories of finished runs, and folders with a study.json.
      output: folder to write to; made where it is not there.
      docs: Markdown file to write results.md to as well, with its pictures in results/ beside it, and the runs' summaries, from
        which the same page can be made again, in results/runs/.
    Raises:
      UserError: an input that can't be read, or an output that can't be used; nothing is written.
    """
    check_output(output, docs)
    found, studies = reading.read(directories)
    if docs is not None:  # the page is that of the summaries beside it, so that they make it again
        found = summaries.named([summaries.as_run(run.path, reading.summary(run)) for run in found])
    models = runs.gather(found)
    shares = [study for study in studies if study.kind == "data_efficiency"]
    of_paper = [model for model in models if model.of_paper]
    claims = claims_lib.claims(of_paper, shares) if of_paper or shares else []  # other problems and questions have none
    pictures = content.draw(models, studies)
    sections, settings = content.sections(models, studies, pictures), content.every_setting(models)
    facts = {"models": len(models), "runs": len(found)}
    everything = [*([content.claims_section(models, claims)] if claims else []), *sections, *settings]
    markdown = _markdown(models, claims, sections)
    texts = {
        output / "table.md": _table_page(models, sections),
        output / "table.csv": tables.to_csv(models),
        output / "compare.html": page.render("Comparison", facts, everything),
        output / "results.md": markdown,
    }
    folders = [output / "figures", output / "results"]
    if docs is not None:
        texts[docs] = markdown
        kept = docs.parent / "results" / "runs"
        texts |= {kept / f"{run.label}.json": summaries.text(run.summary or {}) for run in found}
        folders.append(docs.parent / "results")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in content.CAPTIONS:  # an earlier comparison may have had more
            (folder / f"{name}.png").unlink(missing_ok=True)
        for name, picture in pictures.items():
            files.write(folder / f"{name}.png", picture)
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        files.write(path, text.encode())
        print(f"written: {path}")


def check_output(output: pathlib.Path, docs: pathlib.Path | None) -> None:
    """Raises UserError where a comparison could not be written to this folder and this page."""
    files.check_folder(output, "--output")
    if (output / "config.json").exists() or (output / "study.json").exists():
        raise UserError(
            f"--output={output} is the folder of a run or study: expected another, for the comparison alone"
        )
    if docs is not None and (docs.suffix != ".md" or docs.is_dir()):
        raise UserError(f"--docs={docs}: expected a Markdown file, as in --docs=docs/results.md")
    if docs is not None:
        files.check_file(docs, "--docs")
    if docs is not None and (docs.parent / "results").exists() and not (docs.parent / "results").is_dir():
        raise UserError(f"--docs={docs}: '{docs.parent / 'results'}' is a file, expected a folder for its pictures")


def _table_page(models: Sequence[runs.Model], sections: Sequence[page.Section]) -> str:
    """The tables alone, in Markdown, that of every setting last."""
    shown = [
        page.Section(section.title, [block for block in section.blocks if isinstance(block, Table)])
        for section in sections
    ]
    settings = tables.as_text(tables.settings_table(models))
    return page.markdown(
        [*(section for section in shown if section.blocks), page.Section("Every setting", [settings])], ""
    )


def _markdown(
    models: Sequence[runs.Model], claims: Sequence[claims_lib.Claim], sections: Sequence[page.Section]
) -> str:
    """The page in Markdown, pictures by relative path."""
    made = "Made by `./launch.sh compare`: no figure on this page was typed by hand."
    head = f"# Results\n\n{made}\n"
    judged = [markdown_text(content.intro(models)) + "\n", content.claims_markdown(claims)] if claims else []
    return "\n".join([head, *judged, page.markdown(sections, "results")])


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of `python -m closure_jax.commands.compare`; returns the exit status."""

    def command() -> None:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        compare(options.directories, options.output, options.docs)

    return cli.run(command)


if __name__ == "__main__":
    cli.leave(main())
