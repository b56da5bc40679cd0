"""Check a document against its JSON Schema, and say every mistake once, in our words. Called by job and template."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.errors import Problem
from schemas.problems import merge_problems
from schemas.spec_schema import Schema, SchemaName, list_properties, load_schema
from schemas.spec_words import describe_types, describe_value, join_words, quote, render_value, suggest
from schemas.yaml_source import Document, KeyPath, render_path

if TYPE_CHECKING:
    import jsonschema

NOT_YET = "x-not-supported-yet"
# When one value breaks several rules, the first of these is the mistake; the others follow from it.
_FIRST = ("type", "const", "enum", "pattern")


class SpecCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, and which keys were probably meant by misspelt or misplaced ones: those are not missing."""

    problems: tuple[Problem, ...] = ()
    meant: frozenset[KeyPath] = frozenset()


def check_spec(document: Document, name: SchemaName) -> SpecCheck:
    """Every mistake that the schema finds, sorted by line."""
    errors = list(_make_validator(name).iter_errors(document.data))
    unknown = [entry for error in errors for entry in _find_unknown(error, document, name)]
    meant = frozenset(path for _, path in unknown if path)
    problems = [problem for problem, _ in unknown]
    for error in _keep_first(errors):
        explain = _EXPLAIN.get(str(error.validator))
        if explain:
            problems.extend(explain(_Case(document, error), meant))
    return SpecCheck(problems=merge_problems(problems), meant=meant)


class _Case:
    """One error of the validator with the document it is about."""

    def __init__(self, document: Document, error: jsonschema.ValidationError) -> None:
        self.document = document
        self.path: KeyPath = tuple(error.absolute_path)
        self.keyword = str(error.validator)
        self.rule: Any = error.validator_value
        self.value: Any = error.instance
        self.schema: Mapping[str, Any] = error.schema if isinstance(error.schema, dict) else {}
        self.is_about_name = "propertyNames" in error.absolute_schema_path
        self.name = str(self.path[-1]) if self.path and isinstance(self.path[-1], str) else render_path(self.path)

    @property
    def found(self) -> str:
        # What may be a secret in the wrong place is never repeated.
        if self.schema.get("writeOnly"):
            return "what is written"
        return describe_value(self.value, self.document.texts.get(self.path, str(self.value)))

    @property
    def example(self) -> str:
        examples = self.schema.get("examples")
        if not examples:
            return "See `./inv schema` for what fits here."
        key = f"{self.name}: " if self.path and isinstance(self.path[-1], str) else ""
        return f"For example `{key}{render_value(examples[0])}`."

    def problem(self, message: str, *, code: str, fix: str, at_key: bool = False) -> Problem:
        return self.document.make_problem(self.path, message, code=code, fix=fix, at_key=at_key)


@functools.cache
def _make_validator(name: SchemaName) -> Any:
    import jsonschema  # 35 ms, which a process that only loads a plan saves

    whole = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    extend: Any = jsonschema.validators.extend  # it has no types
    return extend(jsonschema.Draft202012Validator, type_checker=whole)(load_schema(name))


def _is_integer(_checker: Any, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _keep_first(errors: list[Any]) -> list[Any]:
    """Of several errors about one value only the first in rank; what is missing in a mapping counts by itself."""
    ranks: dict[KeyPath, int] = {}
    for error in errors:
        if error.validator in _FIRST and "propertyNames" not in error.absolute_schema_path:
            path = tuple(error.absolute_path)
            ranks[path] = min(ranks.get(path, len(_FIRST)), _FIRST.index(error.validator))
    return [error for error in errors if _rank(error) <= ranks.get(tuple(error.absolute_path), len(_FIRST))]


def _rank(error: Any) -> int:
    if "propertyNames" in error.absolute_schema_path:
        return 0
    return _FIRST.index(error.validator) if error.validator in _FIRST else len(_FIRST)


def _find_unknown(error: Any, document: Document, name: SchemaName) -> Iterator[tuple[Problem, KeyPath | None]]:
    """Each unknown key with the path that was probably meant."""
    if error.validator != "additionalProperties" or not isinstance(error.instance, dict):
        return
    known = error.schema.get("properties", {})
    parent: KeyPath = tuple(error.absolute_path)
    for key in error.instance:
        if key not in known:
            yield _explain_unknown(key, parent, error.schema, document, name)


def _explain_unknown(
    key: str, parent: KeyPath, schema: Schema, document: Document, name: SchemaName
) -> tuple[Problem, KeyPath | None]:
    def make(message: str, code: str, fix: str) -> Problem:
        return document.make_problem((*parent, key), message, code=code, fix=fix, at_key=True)

    if key in schema.get(NOT_YET, ()):
        return make(f"`{key}` is not supported yet", "not_supported_yet", "Remove it."), None
    home = _find_home(key, parent, name)
    if home:
        place = f"under `{render_path(home[:-1])}`" if len(home) > 1 else "at the top, without indentation"
        return make(f"`{key}` does not belong here", "misplaced_key", f"It belongs {place}."), home
    known = schema.get("properties", {})
    guess = suggest(key, known)
    if guess:
        return make(f"unknown key `{key}`", "unknown_key", f"Did you mean `{guess}`?"), (*parent, guess)
    fix = f"Allowed here: {join_words(sorted(known), last='and')}."
    return make(f"unknown key `{key}`", "unknown_key", fix), None


def _find_home(key: str, parent: KeyPath, name: SchemaName) -> KeyPath | None:
    """Where a key that is unknown here would be right, when there is exactly one such place."""
    top = parent[0] if parent else None
    homes = [path for path, _ in list_properties(load_schema(name)) if path[-1] == key]
    near = [path for path in homes if path[0] == top] or [path for path in homes if path[0] != "deploy"]
    return near[0] if len(near) == 1 and "candidates" not in near[0] else None


def _explain_missing(case: _Case, meant: frozenset[KeyPath]) -> Iterator[Problem]:
    for key in case.rule:
        path = (*case.path, key)
        if key in case.value or path in meant:
            continue
        where = f" in `{render_path(case.path)}`" if case.path else ""
        example = _find_example(case, key)
        yield case.problem(f"`{key}` is missing{where}", code="missing_key", fix=f"Add {example}.", at_key=True)


def _find_example(case: _Case, key: str) -> str:
    examples = case.schema.get("properties", {}).get(key, {}).get("examples")
    return f"`{key}: {render_value(examples[0])}`" if examples else f"`{key}`"


def _explain_type(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    expected = describe_types(case.rule)
    if "string" in case.rule and "patternErrorMessage" in case.schema and not isinstance(case.rule, str):
        expected = describe_types([name for name in case.rule if name != "string"]) + " or a certain text"
    if case.value is None:
        yield case.problem(f"`{case.name}` has no value", code="no_value", fix=case.example)
        return
    message = f"`{case.name}`: expected {expected}, found {case.found}"
    yield case.problem(message, code="wrong_type", fix=_fix_type(case))


def _fix_type(case: _Case) -> str:
    text = case.document.texts.get(case.path, "")
    if case.rule == "string" and text and re.search(case.schema.get("pattern", ""), text):
        return f"Put it in quotes: `{case.name}: {quote(text)}`."
    if case.rule == "boolean" and text.lower() in ("yes", "on", "1", "y", "true"):
        return "Write true."
    if case.rule == "boolean" and text.lower() in ("no", "off", "0", "n", "false"):
        return "Write false."
    if case.rule in ("integer", "number") and _is_quoted_number(case):
        return f"Remove the quotes: `{case.name}: {text}`."
    if case.rule == "array" and text:
        return f"Write a list: `{case.name}: [{render_value(case.value)}]`."
    return str(case.schema.get("patternErrorMessage", case.example))


def _is_quoted_number(case: _Case) -> bool:
    return isinstance(case.value, str) and re.fullmatch(r"[0-9]+(\.[0-9]+)?", case.value) is not None


def _explain_enum(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    allowed = [case.rule] if not isinstance(case.rule, list) else case.rule
    words = [word if isinstance(word, str) else quote(word) for word in allowed]
    choice = ("one of " if len(set(words)) > 2 else "") + join_words(words, last="or")
    if case.value is None:
        yield case.problem(f"`{case.name}` has no value", code="no_value", fix=f"Write {choice}.")
    elif isinstance(case.value, str) and case.value in case.schema.get(NOT_YET, ()):
        message = f"`{case.name}: {case.value}` is not supported yet"
        yield case.problem(message, code="not_supported_yet", fix=f"Use {choice}.")
    else:
        guess = suggest(case.value, words) if isinstance(case.value, str) else ""
        fix = f"Did you mean {guess}?" if guess else f"Write {choice}."
        yield case.problem(f"`{case.name}`: expected {choice}, found {case.found}", code="not_allowed", fix=fix)


def _explain_pattern(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    help_text = str(case.schema.get("patternErrorMessage", case.example))
    if case.is_about_name:
        path = (*case.path, str(case.value))
        message = f"the key {quote(str(case.value)[:60])} does not fit here"
        yield case.document.make_problem(path, message, code="bad_format", fix=help_text, at_key=True)
    elif (
        "://" in case.value
        and "not supported yet" in help_text
        and (scheme := case.value.split("://")[0]) + "://" not in help_text
    ):
        message = f"`{case.name}`: {scheme}:// addresses are not supported yet"
        yield case.problem(message, code="not_supported_yet", fix=help_text)
    else:
        # Where the pattern allows digits, numbers may be written as text, and the quotes are not what is wrong.
        takes_numbers = {"integer", "number"} & set(case.schema.get("type", ())) and "[0-9]" not in case.rule
        fix = (
            f"Remove the quotes: `{case.name}: {case.value}`."
            if takes_numbers and _is_quoted_number(case)
            else help_text
        )
        yield case.problem(f"`{case.name}`: {case.found} does not fit", code="bad_format", fix=fix)


_NUMBER_BOUNDS = {
    "minimum": "must be at least",
    "maximum": "must be at most",
    "exclusiveMinimum": "must be more than",
}
_SIZE_BOUNDS = {
    "minLength": ("must not be shorter than", "characters"),
    "maxLength": ("must not be longer than", "characters"),
    "minItems": ("must have at least", "entries"),
    "maxItems": ("must have at most", "entries"),
    "maxProperties": ("must have at most", "keys"),
}


def _explain_number_bound(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    message = f"`{case.name}` {_NUMBER_BOUNDS[case.keyword]} {case.rule:,}, found {case.found}"
    yield case.problem(message, code="out_of_range", fix=case.example)


def _explain_size_bound(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    words, unit = _SIZE_BOUNDS[case.keyword]
    broken = f"{words} {case.rule:,} {unit}, found {len(case.value):,}" if case.value else "is empty"
    yield case.problem(f"`{case.name}` {broken}", code="out_of_range", fix=case.example)


def _explain_repeated(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    for index, item in enumerate(case.value):
        if item in case.value[:index]:
            message = f"{quote(item)} is given twice in `{case.name}`"
            path = (*case.path, index)
            yield case.document.make_problem(path, message, code="repeated_entry", fix="Keep one of the two.")


def _explain_one_of(case: _Case, meant: frozenset[KeyPath]) -> Iterator[Problem]:
    keys = [key for branch in case.rule for key in branch["required"]]
    given = [key for key in keys if key in case.value]
    choice = join_words((f"`{key}`" for key in keys), last="or")
    if given:
        yield _exclude(case, given)
    elif not any((*case.path, key) in meant for key in keys):
        yield case.problem(f"{choice} is missing", code="missing_key", fix=f"Add {_find_example(case, keys[0])}.")


def _explain_not(case: _Case, _meant: frozenset[KeyPath]) -> Iterator[Problem]:
    yield _exclude(case, case.rule["required"])


def _exclude(case: _Case, keys: list[str]) -> Problem:
    later = max(keys, key=lambda key: _order(case, key))
    message = f"{join_words((f'`{key}`' for key in keys), last='and')} exclude each other"
    path = (*case.path, later)
    return case.document.make_problem(path, message, code="exclusive_keys", fix="Keep one of the two.", at_key=True)


def _order(case: _Case, key: str) -> tuple[int, int]:
    place = case.document.locate((*case.path, key), at_key=True)
    return place.line, place.column


_EXPLAIN: Mapping[str, Callable[[_Case, frozenset[KeyPath]], Iterator[Problem]]] = {
    "required": _explain_missing,
    "type": _explain_type,
    "enum": _explain_enum,
    "const": _explain_enum,
    "pattern": _explain_pattern,
    "uniqueItems": _explain_repeated,
    "oneOf": _explain_one_of,
    "not": _explain_not,
    **dict.fromkeys(_NUMBER_BOUNDS, _explain_number_bound),
    **dict.fromkeys(_SIZE_BOUNDS, _explain_size_bound),
}
