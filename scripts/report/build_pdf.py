"""Turn the report from Markdown into PDF: pandoc writes Typst with our page style, Typst sets the pages."""

from pathlib import Path

import pypandoc
import typst
import yaml
from pylopdf_fonts_zh_cn import sans_path

from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import written_whole
from scripts.report.markdown import FORMAT


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--report", type=Path, required=True, help="report in Markdown; its figures are found from its folder"
    )
    parser.add_argument("--page", type=Path, required=True, help="page.typ, the template for pandoc")
    parser.add_argument("--output", type=Path, required=True, help="PDF to write")
    options = parser.parse_args()

    report = options.report.read_text(encoding="utf-8")
    pdf = set_pages(to_typst(report, options.page), root=options.report.parent, created=read_date(report))
    with written_whole(options.output) as temporary:
        temporary.write_bytes(pdf)
    say(f"build_pdf: {options.output}")


def to_typst(report: str, page: Path) -> str:
    """Markdown as a whole Typst document in the style of `page`."""
    # Pandoc gives a table fixed widths when a line of its source is longer than the columns; page.typ knows better.
    arguments = ["--standalone", f"--template={page.resolve()}", "--columns=100000", "--wrap=none"]
    return str(pypandoc.convert_text(report, "typst", format=FORMAT, extra_args=arguments))


def read_date(report: str) -> int:
    """When the newest thing that the report shows was made, in seconds since 1970, from its header."""
    _, header, _ = report.split("---\n", 2)
    return int(yaml.safe_load(header)["created"])


def set_pages(source: str, root: Path, created: int) -> bytes:
    """Typst source as PDF. The same source, figures and date give the same bytes.

    Args:
        source: a whole Typst document.
        root: folder that paths of figures start from; nothing outside of it can be read.
        created: date that is written into the PDF, in seconds since 1970.

    Raises:
        UserError: Typst refused the source, or warned, as of a font that is missing.
    """
    fonts = [str(sans_path().parent)]
    try:
        compiler = typst.Compiler(root=str(root.resolve()), font_paths=fonts, ignore_system_fonts=True)
        pdf, warnings = compiler.compile_with_warnings(source.encode(), format="pdf", timestamp=created)
    except typst.TypstError as error:
        raise UserError(f"the report cannot be set: {error.diagnostic}") from error
    if warnings:
        raise UserError("\n".join(f"setting the report: {warning.message}" for warning in warnings))
    assert isinstance(pdf, bytes)  # a list of them is only given for images
    return pdf


if __name__ == "__main__":
    run_script(main)
