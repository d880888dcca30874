"""YAML and JSON from strangers: read within limits, so that a small file cannot use up memory or time.

A YAML alias stands for what it names, however large, and aliases of aliases multiply: ten lines can mean a billion
entries. Deep nesting overflows the stack of whoever walks the result. Both are counted before anything is built.
"""

import json
from collections.abc import Iterable
from typing import Any

import yaml

from lmsys_ensemble.errors import ConfigError

MAX_DEPTH = 64
"""Levels of nesting; settings have about five, a model's configuration about six."""

MAX_YAML_BYTES = 2**20
"""YAML is for people; its parser takes seconds for a megabyte."""

MAX_ENTRIES = 100_000
"""Scalars, lists and mappings of a YAML file, counted as often as aliases repeat them."""

_MERGE = "tag:yaml.org,2002:merge"


def parse_json(text: str, source: object) -> Any:
    """Read JSON.

    Parameters
    ----------
    text : str
        What was read.
    source : object
        Where it was read from, for the error.

    Raises
    ------
    ConfigError
        If it is no JSON, or is nested more than `MAX_DEPTH` levels deep.
    """
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise _too_deep(source) from error
    except ValueError as error:
        raise ConfigError(f"{source} cannot be read as JSON: {error}") from error
    level = [values]
    for _ in range(MAX_DEPTH + 1):  # what the innermost holds is one more
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return values
    raise _too_deep(source)


def parse_yaml(text: str, source: object) -> Any:
    """Read YAML, plain values only.

    Raises
    ------
    ConfigError
        If it is no YAML, names a key twice in one mapping, is nested more than `MAX_DEPTH` levels deep, or means more
        than `MAX_ENTRIES` entries.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{source} has {len(text):,} characters; a YAML file may have {MAX_YAML_BYTES:,}")
    try:
        _check_events(text, source)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_entries(node, source)
            _check_keys(node, loader, source)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{source} cannot be read as YAML: {error}") from error


def _check_events(text: str, source: object) -> None:
    """Count levels on the flat stream of events, before anything recursive sees the text."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep(source)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_entries(root: yaml.Node, source: object) -> None:
    """Count what a document means once aliases are written out; shared nodes are visited once."""
    sizes: dict[int, int] = {}
    heights: dict[int, int] = {}
    open_nodes: set[int] = set()
    stack = [(root, False)]
    while stack:
        node, is_counted = stack.pop()
        children = _children(node)
        if is_counted:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            heights[id(node)] = 1 + max((heights[id(child)] for child in children), default=0)
        elif id(node) in open_nodes:
            raise ConfigError(f"{source} holds an alias that contains itself{_line(node)}; write the values out")
        elif id(node) not in sizes:
            open_nodes.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for child in children if id(child) not in sizes)
    if sizes[id(root)] > MAX_ENTRIES:
        raise ConfigError(
            f"{source} means {sizes[id(root)]:.3g} entries once its aliases are written out; at most {MAX_ENTRIES:,} "
            "are read"
        )
    if heights[id(root)] > MAX_DEPTH + 1:
        raise _too_deep(source)


def _check_keys(root: yaml.Node, loader: yaml.SafeLoader, source: object) -> None:
    """Refuse a key that stands twice in one mapping: YAML forbids it, and PyYAML takes the last without a word."""
    visited: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        stack.extend(_children(node))
        lines: dict[object, int] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            name, line = loader.construct_object(key), key.start_mark.line + 1
            if name in lines:
                raise ConfigError(
                    f"{source} has the key {key.value!r} twice in one mapping (lines {lines[name]} and {line}), of "
                    "which only one would count; leave the other out"
                )
            lines[name] = line


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _line(node: yaml.Node) -> str:
    return f" in line {node.start_mark.line + 1}" if node.start_mark is not None else ""


def _too_deep(source: object) -> ConfigError:
    return ConfigError(f"{source} is nested more than {MAX_DEPTH} levels deep; such a file is not read")
