"""Convert the report from Markdown to PDF: pandoc writes Typst with our page template, and Typst writes the PDF."""

from pathlib import Path

import pypandoc
import typst
import yaml
from pylopdf_fonts_zh_cn import sans_path

from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import written_whole
from scripts.common.markdown import FORMAT


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--report", type=Path, required=True, help="report in Markdown; paths of figures are relative to its folder"
    )
    parser.add_argument("--page", type=Path, required=True, help="page.typ, pandoc's template")
    parser.add_argument("--output", type=Path, required=True, help="PDF to write")
    options = parser.parse_args()

    report = options.report.read_text(encoding="utf-8")
    pdf = set_pages(to_typst(report, options.page), root=options.report.parent, created=read_date(report))
    with written_whole(options.output) as temporary:
        temporary.write_bytes(pdf)
    say(f"build_pdf: {options.output}")


def to_typst(report: str, page: Path) -> str:
    """Convert Markdown to a complete Typst document with the template `page`."""
    # If a line of a table is longer than --columns, pandoc sets fixed widths. page.typ computes better ones.
    arguments = ["--standalone", f"--template={page.resolve()}", "--columns=100000", "--wrap=none"]
    return str(pypandoc.convert_text(report, "typst", format=FORMAT, extra_args=arguments))


def read_date(report: str) -> int:
    """Creation date of the newest part of the report, in seconds since 1970, from its header."""
    _, header, _ = report.split("---\n", 2)
    return int(yaml.safe_load(header)["created"])


def set_pages(source: str, root: Path, created: int) -> bytes:
    """Compile Typst source to PDF. The same source, figures and date give the same bytes.

    Args:
        source: a complete Typst document.
        root: folder that paths of figures are relative to. Files outside of it cannot be read.
        created: date to write into the PDF, in seconds since 1970.

    Raises:
        UserError: Typst reported an error or a warning, such as a missing font.
    """
    fonts = [str(sans_path().parent)]
    try:
        compiler = typst.Compiler(root=str(root.resolve()), font_paths=fonts, ignore_system_fonts=True)
        pdf, warnings = compiler.compile_with_warnings(source.encode(), format="pdf", timestamp=created)
    except typst.TypstError as error:
        raise UserError(f"typesetting the report failed: {error.diagnostic}") from error
    if warnings:
        raise UserError("\n".join(f"typesetting the report: {warning.message}" for warning in warnings))
    assert isinstance(pdf, bytes)  # lists are only returned for images
    return pdf


if __name__ == "__main__":
    run_script(main)
