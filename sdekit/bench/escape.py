"""Texts of results in other people's formats: whatever a name holds, it stands there as text and as nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

__all__ = ["csv_field", "file_stems", "in_figure", "latex", "latex_code", "markdown", "markdown_code", "one_line"]

_UNSHOWN = {"Cc", "Cf", "Cn", "Co", "Cs"}  # control, format, unassigned, private, halves of pairs
_PLAIN = re.compile(r"[^`|\\]+")  # means nothing within a code span in a cell of a Markdown table
_PROSE = " .,:;()=+-?%'\""  # means nothing within a line
_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # Letters for what some languages of babel make commands.
    **{c: rf"\symbol{{{ord(c)}}}" for c in "\"'`"},
    # An opening bracket after the end of a row would be its option, and a star a part of its name.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
_BREAKS = re.compile(r"(\\_|[,:(])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LONGEST_STEM = 100


def one_line(text: str) -> str:
    """The text with single spaces for white space of any kind, and U+FFFD for what cannot be shown."""
    spaced = " ".join(text.split())
    return "".join("\ufffd" if unicodedata.category(c) in _UNSHOWN else c for c in spaced)


def markdown(text: str) -> str:
    """For prose after a word, or a cell of a table: what Markdown gives a meaning to as numbers of characters."""
    marked = "".join(c if c.isalnum() or not c.isascii() or c in _PROSE else f"&#{ord(c)};" for c in one_line(text))
    return marked.replace("www.", "www&#46;")  # a link, where links need no marks


def markdown_code(text: str) -> str:
    """A code span where the text is plain enough to stand in one; else as `markdown`."""
    line = one_line(text)
    return f"`{line}`" if _PLAIN.fullmatch(line) else markdown(line)


def latex(text: str) -> str:
    """For text mode, any engine: what is neither ASCII nor an accented letter of Western Europe as its number."""
    escaped = "".join(_latex_character(c) for c in one_line(text))
    return escaped.replace("--", "-{}-{}")  # which would be a dash


def latex_code(text: str) -> str:
    """In typewriter type, with places where a line may be broken."""
    broken = _BREAKS.sub(lambda found: found[0] + r"\allowbreak{}", latex(text))
    return rf"\texttt{{{broken}}}"


def _latex_character(character: str) -> str:
    if character.isascii():
        return _LATEX.get(character, character)
    base = unicodedata.decomposition(character).partition(" ")[0]
    if ord(character) < 256 and character.isalpha() and base and not base.startswith("<"):
        return character
    return f"U+{ord(character):04X}"


def csv_field(text: str) -> str:
    """One line, with an apostrophe before what a spreadsheet would take for a formula."""
    line = one_line(text)
    return f"'{line}" if line.startswith(_FORMULA) else line


def in_figure(text: str) -> str:
    """For matplotlib, to which dollars are mathematics."""
    return one_line(text).replace("$", r"\$")


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """For each name a file's, without its suffix: letters, digits, dots, underscores and hyphens; no two are equal.

    Upper and lower case count as the same, as they do to some systems.
    """
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        stem = found = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:_LONGEST_STEM] or "unnamed"
        number = 2
        while found.lower() in taken:
            found, number = f"{stem}-{number}", number + 1
        stems[name] = found
        taken.add(found.lower())
    return stems
