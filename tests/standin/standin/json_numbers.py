"""Numbers in JSON as PARSE_JSON takes them: exactly where a NUMBER has their digits as they are written, and else as doubles."""

from __future__ import annotations

from standin.names import literal

_DIGITS, _DECIMALS = 38, 37
# Text without anything like this has no number that becomes a double.
_SUSPICIOUS = f"[0-9][eE][-+0-9]|[.][0-9]{{{_DECIMALS + 1}}}|[0-9.]{{{_DIGITS + 1}}}"
_NUMBER = r"-?[0-9]+(?:[.][0-9]+)?(?:[eE][-+]?[0-9]+)?"
# Strings are taken whole, so that nothing in them is taken for a number; all else as it comes.
_TOKEN = rf'(?s)"(?:[^"\\]|\\.)*"|{_NUMBER}|[^"0-9-]+|.'
_IS_DOUBLE = f"[eE]|[.][0-9]{{{_DECIMALS + 1}}}"
# What stands before the digits that count, and the point between them.
_UNCOUNTED = "^-?0?|[.]"


def rounded(sql: str) -> str:
    """The DuckDB expression for this JSON text with its doubles written as such.

    What is beyond all doubles becomes `?`, which is no JSON and is refused with the rest.
    """
    digits = f"length(regexp_replace(token, {literal(_UNCOUNTED)}, '', 'g'))"
    is_double = (
        f"regexp_full_match(token, {literal(_NUMBER)}) AND "
        f"(regexp_matches(token, {literal(_IS_DOUBLE)}) OR {digits} > {_DIGITS})"
    )
    double = "CASE WHEN isfinite(TRY_CAST(token AS DOUBLE)) THEN CAST(TRY_CAST(token AS DOUBLE) AS VARCHAR) ELSE '?' END"
    tokens = f"regexp_extract_all({sql}, {literal(_TOKEN)})"
    written = f"list_transform({tokens}, lambda token: CASE WHEN {is_double} THEN {double} ELSE token END)"
    is_suspicious = f"regexp_matches({sql}, {literal(_SUSPICIOUS)})"
    return f"CASE WHEN {is_suspicious} THEN array_to_string({written}, '') ELSE {sql} END"
