"""Which fields a client selected below the one being resolved, so that one statement fetches them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphql import FieldNode, FragmentSpreadNode, GraphQLResolveInfo, InlineFragmentNode, SelectionSetNode


def selects(info: GraphQLResolveInfo, *path: str) -> bool:
    """True when ``path`` (GraphQL names, from below the current field) is selected, also through fragments."""
    sets: list[SelectionSetNode] = [node.selection_set for node in info.field_nodes if node.selection_set]
    for name in path:
        found = [field for field in _fields(info, sets) if field.name.value == name]
        if not found:
            return False
        sets = [field.selection_set for field in found if field.selection_set]
    return True


def _fields(info: GraphQLResolveInfo, sets: Sequence[SelectionSetNode]) -> Iterable[FieldNode]:
    for selection_set in sets:
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                yield selection
            elif isinstance(selection, InlineFragmentNode):
                yield from _fields(info, [selection.selection_set])
            elif isinstance(selection, FragmentSpreadNode):
                yield from _fields(info, [info.fragments[selection.name.value].selection_set])
