"""Source code: the text as it is; functions, classes, targets and statements at the outer levels are its
sections.
"""

from __future__ import annotations

import re
from pathlib import PurePath

from knowledge.ingestion.formats.base import (
    CODE,
    Block,
    Heading,
    ParsedDocument,
    ParseLimits,
    list_lines,
    shorten_title,
)
from knowledge.ingestion.formats.text import decode_text, find_paragraphs

_SCRIPT = r"(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:async\s+)?"
_C_LIKE = re.compile(
    r"(?!(?:if|for|while|switch|return|else|do|case|typedef|using|import|package)\b)"
    r"(?:[A-Za-z_][\w:<>,\[\]]*[ \t*&]+){1,6}~?[\w:]+\s*\([^;]{0,300}$"
    r"|(?:template\b.*|(?:public |final |abstract |static )*"
    r"(?:class|struct|enum|union|interface|namespace|record)\s+\w+[^;]*)$"
)
_JAVA_MEMBER = re.compile(r"(?:public|private|protected)\b[^;=]{1,300}\([^;]*$")
# Ending → (pattern of a line that opens a section, level); the pattern is matched at the line's first
# character.
_PYTHON = [
    (re.compile(r"(?:async\s+)?def\s+\w+|class\s+\w+"), 1),
    (re.compile(r"[ \t]{1,4}(?:async\s+)?def\s+\w+"), 2),
]
_ECMASCRIPT = [
    (re.compile(_SCRIPT + r"(?:function\b|class\s|interface\s|type\s+\w+\s*=|enum\s|namespace\s)"), 1),
    (
        re.compile(
            _SCRIPT
            + r"(?:const|let|var)\s+\w+\s*(?::[^=]{1,100})?=\s*(?:async\s*)?(?:\(|function\b|\w+\s*=>)"
        ),
        1,
    ),
]
_SHELL = [(re.compile(r"(?:function\s+[\w:-]+|[\w:-]+\s*\(\))"), 1)]
_MAKE = [(re.compile(r"[\w./%$(){}-][\w./%$(){} -]*:(?![=:])"), 1)]
_DOCKER = [(re.compile(r"FROM\s", re.IGNORECASE), 1)]
_SQL = [
    (
        re.compile(
            r"(?:create|alter|drop|insert|update|delete|grant|with|select|comment\s+on)\b", re.IGNORECASE
        ),
        1,
    )
]
_C = [(_C_LIKE, 1)]
_JAVA = [(_C_LIKE, 1), (re.compile(r"[ \t]{1,4}" + _JAVA_MEMBER.pattern), 2)]
_PATTERNS: dict[str, list[tuple[re.Pattern[str], int]]] = {
    **dict.fromkeys((".py",), _PYTHON),
    **dict.fromkeys((".js", ".jsx", ".ts", ".tsx"), _ECMASCRIPT),
    **dict.fromkeys((".sh", ".bash"), _SHELL),
    **dict.fromkeys((".c", ".h", ".cc", ".cpp", ".hpp"), _C),
    **dict.fromkeys((".java", ".kt"), _JAVA),
    ".go": [(re.compile(r"func\s|type\s+\w+\s"), 1)],
    ".rs": [
        (
            re.compile(
                r"(?:pub(?:\([^)]*\))?\s+)?(?:async\s+|unsafe\s+)*(?:fn|struct|enum|impl|trait|mod)\b[^;]*$"
            ),
            1,
        )
    ],
    ".rb": [(re.compile(r"(?:class|module|def)\s"), 1), (re.compile(r"  def\s"), 2)],
    ".pl": [(re.compile(r"sub\s+\w+"), 1)],
    ".php": [(re.compile(r"(?:abstract |final )*(?:function|class|interface|trait)\s"), 1)],
    ".lua": [(re.compile(r"(?:local\s+)?function\s"), 1)],
    ".ps1": [(re.compile(r"function\s", re.IGNORECASE), 1)],
    ".tcl": [(re.compile(r"proc\s"), 1)],
    ".proto": [(re.compile(r"(?:message|service|enum)\s"), 1)],
    ".sql": _SQL,
    ".mk": _MAKE,
    ".dockerfile": _DOCKER,
}
_NAMED = {"makefile": _MAKE, "dockerfile": _DOCKER, "containerfile": _DOCKER}
_ABOVE = re.compile(r"[ \t]*(?:@|#|//|/\*|\*|--|\"\"\"|///)")
_MAX_LINE = 400


def parse_source(data: bytes, *, filename: str, media_type: str, limits: ParseLimits) -> ParsedDocument:
    """The text as it is; blank lines part the blocks. The title is the file's name."""
    text = decode_text(data, filename=filename, limits=limits)
    name = PurePath(filename.lower())
    patterns = _PATTERNS.get(name.suffix) or _NAMED.get(name.name.split(".")[0], [])
    headings: list[Heading] = []
    blocks: list[Block] = []
    for run in find_paragraphs(text, list_lines(text)):
        begin = run[0][0]
        above = begin  # where the comments and decorators directly above the line at hand begin
        for index, (start, end) in enumerate(run):
            line = text[start : min(end, start + _MAX_LINE)]
            level = next((level for pattern, level in patterns if pattern.match(line)), None)
            if level is not None:
                if above > begin:
                    blocks.append(Block(begin, text.rfind("\n", begin, above), CODE))
                    begin = above
                headings.append(Heading(begin, level, _clean_title(line)))
            if not _ABOVE.match(line):
                above = run[index + 1][0] if index + 1 < len(run) else end
        blocks.append(Block(begin, run[-1][1], CODE))
    return ParsedDocument(filename, text, media_type, tuple(headings), tuple(blocks), ())


def _clean_title(line: str) -> str:
    """Up to the parameters: "def read_rows(path)" → def read_rows; a name alone keeps its brackets:
    "main()".
    """
    title = re.sub(r"\s*(?:=>)?\s*[{:(]?\s*$", "", line.strip())
    name = re.match(r"(\w[^()]*\w)\s*\(", title)
    return shorten_title(name[1] if name and " " in name[1] else title, 80)
