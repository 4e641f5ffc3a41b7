"""PDF: the text layer page by page, with headings read from type size and paragraphs from line spacing."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from dataclasses import dataclass

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c

from knowledge.ingestion.formats.base import (
    CODE,
    HEADING,
    LIST,
    PARAGRAPH,
    DocumentBuilder,
    ParsedDocument,
    ParseError,
    ParseLimits,
    clean_text,
    make_title,
    shorten_title,
)
from knowledge.ingestion.formats.text import read_numbered_level

_BULLET = re.compile(r"[ \t]*(?:[-*•–▪◦●‣]|\(?\d{1,3}[.)])[ \t]+\S")
_MONOSPACED = re.compile(r"mono|courier|consol|menlo|fixed|typewriter|code", re.IGNORECASE)
# Titles that programs put in by themselves.
_MACHINE_TITLE = re.compile(
    r"microsoft word|untitled|\.(?:docx?|odt|tex|indd|pages|html?|pdf)$|^(?:about:|https?:)", re.I
)
_BOLD = 600
_CHARACTERS_PER_TITLE = 120
_LOOKED_AT = 5  # pages of a PDF without text
_NAMED_RUNS = 20  # of pages without text, in a note


@dataclass(frozen=True)
class _Line:
    """A line of a page. `gap` is the space above it in line heights, `size` the type size in points."""

    text: str
    page: int
    size: float
    bold: bool
    monospaced: bool
    gap: float
    left: float


def parse_pdf(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """The text of all pages; ParsedDocument.pages holds where each begins, its note names those without text.

    Raises ParseError encrypted, damaged, too_large (pages) and no_text (a scan without a text layer).
    """
    document = _open(data, filename=filename)
    try:
        if len(document) > limits.max_pages:
            raise ParseError(
                "too_large",
                f"{filename} has {len(document):,} pages, {limits.max_pages:,} are allowed: split it.",
            )
        pages = [_read_page(document, index, filename=filename) for index in range(len(document))]
        metadata_title = shorten_title(document.get_metadata_value("Title") or "")
        pictured = not any(pages) and _has_pictures(document)
    finally:
        document.close()
    pages = _drop_running_lines(pages)
    if not any(pages):
        what = "pictures of pages and no text (a scan)" if pictured else "no text"
        raise ParseError("no_text", f"{filename} holds {what}: run OCR on it first and upload the result.")
    levels, typical = _rank_sizes(pages), _find_typical_gap(pages)
    builder = DocumentBuilder(filename=filename, limits=limits)
    starts = []
    for lines in pages:
        continued = bool(lines) and _continues(builder, lines[0], levels)
        # A page begins after the separator that its first line will bring.
        starts.append(builder.length + (1 if continued else 2) if builder.length else 0)
        if continued:
            taken = next(
                (n for n, line in enumerate(lines) if n and _parts(line, lines[:n], typical)),
                len(lines),
            )
            builder.extend("\n".join(line.text for line in lines[:taken]))
            lines = lines[taken:]
        _write_page(builder, lines, levels, typical)
    starts = [min(start, builder.length) for start in starts]
    if _MACHINE_TITLE.search(metadata_title):
        metadata_title = ""
    title = metadata_title or _find_title(builder, pages) or make_title(filename)
    return builder.build(
        title=title, media_type=media_type, pages=tuple(starts), note=_note_pages_without_text(pages)
    )


def _note_pages_without_text(pages: list[list[_Line]]) -> str:
    """Which pages nothing was found on, in a sentence; empty when there are none."""
    empty = [number for number, lines in enumerate(pages, 1) if not lines]
    runs: list[list[int]] = []
    for number in empty:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    named = [f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    if len(named) > _NAMED_RUNS:
        named[_NAMED_RUNS:] = ["…"]
    if not named:
        return ""
    which = f"Pages {', '.join(named)}" if len(empty) > 1 else f"Page {named[0]}"
    holds = "hold no text and were" if len(empty) > 1 else "holds no text and was"
    return f"{which} of {len(pages):,} {holds} skipped: where they are scans, run OCR on the file and upload the result."


def _open(data: bytes, *, filename: str) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if error.err_code in (pdfium_c.FPDF_ERR_PASSWORD, pdfium_c.FPDF_ERR_SECURITY):
            raise ParseError(
                "encrypted",
                f"{filename} is protected by a password: remove the protection and upload it again.",
            ) from error
        raise ParseError(
            "damaged", f"{filename} is damaged and cannot be opened: export it as PDF again and upload that."
        ) from error


def _read_page(document: pdfium.PdfDocument, index: int, *, filename: str) -> list[_Line]:
    try:
        page = document[index]
        textpage = page.get_textpage()
    except pdfium.PdfiumError as error:
        raise ParseError(
            "damaged", f"Page {index + 1} of {filename} is damaged: export it as PDF again and upload that."
        ) from error
    try:
        return _read_lines(textpage, page=index)
    finally:
        textpage.close()
        page.close()


def _has_pictures(document: pdfium.PdfDocument) -> bool:
    """Whether one of the first pages shows a picture."""
    for index in range(min(len(document), _LOOKED_AT)):
        page = document[index]
        try:
            if next(page.get_objects(filter=[pdfium_c.FPDF_PAGEOBJ_IMAGE], max_depth=3), None) is not None:
                return True
        finally:
            page.close()
    return False


def _read_lines(textpage: pdfium.PdfTextPage, *, page: int) -> list[_Line]:
    # pdfium writes U+FFFE or U+0002 for the hyphen of a word broken over two lines.
    text = textpage.get_text_range().replace("\ufffe", "-").replace("\x02", "-")
    # Line metrics come from character indexes. Where pdfium's text and its characters do not run in step
    # (characters
    # outside the basic plane, unmapped glyphs), the page keeps its text and goes without metrics.
    in_step = len(text) == textpage.count_chars()
    lines: list[_Line] = []
    previous_bottom: float | None = None
    offset = 0
    for raw_line in text.split("\n"):
        start, offset = offset, offset + len(raw_line) + 1
        stripped = raw_line.strip()
        if not stripped:
            continue
        line_text = clean_text(raw_line).rstrip()
        if not line_text.strip():
            continue
        first = start + len(raw_line) - len(raw_line.lstrip())
        if not in_step:
            lines.append(_Line(line_text, page, 0.0, False, False, 0.0, 0.0))
            continue
        size, bold, monospaced = _read_font(textpage, first)
        # A command at the beginning of a line of prose does not make it a listing.
        monospaced = monospaced and _read_font(textpage, start + len(raw_line.rstrip()) - 1)[2]
        left, bottom, _, top = textpage.get_charbox(first, loose=True)
        height = max(top - bottom, 1.0)
        gap = 0.0 if previous_bottom is None else (previous_bottom - top) / height
        previous_bottom = bottom
        lines.append(_Line(line_text, page, round(size * 2) / 2, bold, monospaced, gap, left))
    return lines


def _read_font(textpage: pdfium.PdfTextPage, index: int) -> tuple[float, bool, bool]:
    """Type size in points (as shown: the text matrix may scale it), whether bold, whether monospaced."""
    size = pdfium_c.FPDFText_GetFontSize(textpage, index)
    matrix = pdfium_c.FS_MATRIX()
    if pdfium_c.FPDFText_GetMatrix(textpage, index, matrix):
        size *= abs(matrix.d) or abs(matrix.b) or 1.0
    name = ctypes.create_string_buffer(128)
    pdfium_c.FPDFText_GetFontInfo(textpage, index, name, 128, None)
    font = name.value.decode("utf-8", "replace")
    bold = pdfium_c.FPDFText_GetFontWeight(textpage, index) >= _BOLD or "bold" in font.lower()
    return size, bold, bool(_MONOSPACED.search(font))


def _drop_running_lines(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Leave out headers and footers: a first or last line that most pages share, but for the page number."""
    if len(pages) < 3:
        return pages

    def key(line: _Line) -> str:
        return re.sub(r"\d+", "#", line.text.strip())

    for edge in (0, -1, 0, -1):  # twice: headers and footers of two lines
        counts = Counter(key(lines[edge]) for lines in pages if lines)
        running = {
            text for text, count in counts.items() if count >= max(3, len(pages) * 0.6) and len(text) <= 120
        }
        pages = [
            (lines[1:] if edge == 0 else lines[:-1]) if lines and key(lines[edge]) in running else lines
            for lines in pages
        ]
    return pages


def _rank_sizes(pages: list[list[_Line]]) -> dict[float, int]:
    """Type sizes clearly above the body's, as heading levels: the largest is 1. Empty without metrics."""
    weights: Counter[float] = Counter()
    for lines in pages:
        for line in lines:
            weights[line.size] += len(line.text)
    body = weights.most_common(1)[0][0]
    if body <= 0:
        return {}
    sizes = sorted((size for size in weights if size >= body * 1.12), reverse=True)
    return {size: min(rank, 4) for rank, size in enumerate(sizes, 1)}


def _write_page(
    builder: DocumentBuilder, lines: list[_Line], levels: dict[float, int], typical: float
) -> None:
    run: list[_Line] = []
    run_level: int | None = None

    def end_run() -> None:
        if run:
            text = "\n".join(line.text for line in run)
            if run_level is not None:
                builder.add(" ".join(text.split()), HEADING, level=run_level)
            else:
                builder.add(text, _classify(run))
            run.clear()

    for index, line in enumerate(lines):
        follower = lines[index + 1] if index + 1 < len(lines) else None
        level = _read_level(
            line, follower, levels, typical=typical, after_gap=not index or line.gap > typical + 0.35
        )
        if run and (
            level != run_level or line.monospaced != run[-1].monospaced or _parts(line, run, typical)
        ):
            end_run()
        run_level = level
        run.append(line)
    end_run()


def _continues(builder: DocumentBuilder, line: _Line, levels: dict[float, int]) -> bool:
    """Whether a page's first line goes on with the paragraph that the page before left unfinished."""
    if not builder.blocks or builder.blocks[-1].kind != PARAGRAPH or line.size in levels or line.monospaced:
        return False
    return line.text.lstrip()[:1].islower() and builder.last_character not in ".:!?"


def _find_typical_gap(pages: list[list[_Line]]) -> float:
    """The space between the lines of a paragraph, in line heights; most gaps of most documents are such."""
    gaps = sorted(line.gap for lines in pages for line in lines[1:] if line.gap > -0.5)
    return gaps[len(gaps) // 4] if gaps else 0.0


def _parts(line: _Line, run: list[_Line], typical: float) -> bool:
    """Whether a paragraph ends before this line: clearly more space above it than between most lines."""
    bullet = bool(_BULLET.match(line.text))
    if line.gap > typical + 0.35:
        # Items of a list stand apart by half a line and still are one list.
        return not (bullet and _BULLET.match(run[0].text) and line.gap < typical + 0.9)
    return bullet and not _BULLET.match(run[0].text) and line.left <= run[-1].left - 1


def _read_level(
    line: _Line, follower: _Line | None, levels: dict[float, int], *, typical: float, after_gap: bool
) -> int | None:
    """The heading level of a line by its type size, or as a numbered or bold line that stands alone; else
    None.
    """
    text = line.text.strip()
    if len(text) > _CHARACTERS_PER_TITLE or not any(map(str.isalpha, text)) or line.monospaced:
        return None
    if line.size in levels:
        return levels[line.size]
    if follower is None or not after_gap or line.size <= 0:
        return None
    deepest = max(levels.values(), default=0)
    numbered = read_numbered_level(text)
    alone = follower.gap > typical + 0.35
    if numbered and (alone or line.bold) and not read_numbered_level(follower.text.strip()):
        return min(numbered + deepest, 4)
    # With type sizes for title and sections, a bold line of body size is the head of a table, not a section.
    if deepest < 2 and line.bold and alone and not follower.bold and text[-1] not in ".,;:":
        return min(deepest + 1, 4)
    return None


def _classify(run: list[_Line]) -> str:
    if all(line.monospaced for line in run):
        return CODE
    bullets = sum(1 for line in run if _BULLET.match(line.text))
    return LIST if _BULLET.match(run[0].text) and (bullets > 1 or len(run) <= 3) else PARAGRAPH


def _find_title(builder: DocumentBuilder, pages: list[list[_Line]]) -> str:
    if builder.headings and builder.headings[0].start < 400:
        return shorten_title(builder.headings[0].title)
    first = next(lines[0].text.strip() for lines in pages if lines)
    return shorten_title(first) if 3 <= len(first) <= 90 and first[-1] not in ".,;:" else ""
