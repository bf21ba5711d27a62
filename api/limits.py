"""How much one GraphQL document may ask for: tokens, depth, and fields at its root.

Checked on the document, before anything runs. Each list is capped where it is resolved, so the root fields bound
the rows of an answer.
"""

from __future__ import annotations

from typing import Any

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
)

MAX_TOKENS = 2000
"""Validation is quadratic in places; the introspection query has about 300."""
MAX_ROOT_FIELDS = 20
INTROSPECTION_DEPTH = 20
"""The standard introspection query is 13 deep, and its answer does not depend on the data."""


def depth_rule(max_depth: int) -> type[ASTValidationRule]:
    """A rule that refuses operations in which fields are nested deeper than ``max_depth``."""

    class DepthLimit(ASTValidationRule):
        def enter_document(self, document: DocumentNode, *_args: Any) -> None:
            fragments = _fragments(document)
            for operation in _operations(document):
                for field, depth in _root_depths(operation.selection_set, fragments):
                    limit = INTROSPECTION_DEPTH if field.name.value in ("__schema", "__type") else max_depth
                    if depth > limit:
                        self.report_error(
                            GraphQLError(
                                f"{field.name.value} is {depth} fields deep; at most {limit} are answered",
                                field,
                                extensions={"code": "QUERY_TOO_DEEP"},
                            )
                        )

    return DepthLimit


def root_fields_rule() -> type[ASTValidationRule]:
    """A rule that refuses operations with more than MAX_ROOT_FIELDS fields at the root, aliases counted."""

    class RootFieldsLimit(ASTValidationRule):
        def enter_document(self, document: DocumentNode, *_args: Any) -> None:
            fragments = _fragments(document)
            for operation in _operations(document):
                count = len(_root_depths(operation.selection_set, fragments))
                if count > MAX_ROOT_FIELDS:
                    self.report_error(
                        GraphQLError(
                            f"{count} fields at the root; at most {MAX_ROOT_FIELDS} are answered at once",
                            operation,
                            extensions={"code": "QUERY_TOO_COMPLEX"},
                        )
                    )

    return RootFieldsLimit


Fragments = dict[str, FragmentDefinitionNode]


def _fragments(document: DocumentNode) -> Fragments:
    return {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}


def _operations(document: DocumentNode) -> list[OperationDefinitionNode]:
    return [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]


def _root_depths(selections: SelectionSetNode, fragments: Fragments) -> list[tuple[FieldNode, int]]:
    known: dict[str, int] = {}
    found: list[tuple[FieldNode, int]] = []
    seen: set[str] = set()

    def collect(selection_set: SelectionSetNode) -> None:
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                found.append((node, _depth(node, fragments, known, ())))
            elif isinstance(node, InlineFragmentNode):
                collect(node.selection_set)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name in fragments and name not in seen:
                    seen.add(name)
                    collect(fragments[name].selection_set)

    collect(selections)
    return found


def _depth(
    node: FieldNode | InlineFragmentNode | FragmentDefinitionNode,
    fragments: Fragments,
    known: dict[str, int],
    inside: tuple[str, ...],
) -> int:
    """Levels of fields below and including ``node``; each fragment is measured once, cycles count once."""
    deepest = 0
    for child in node.selection_set.selections if node.selection_set else ():
        if isinstance(child, FieldNode | InlineFragmentNode):
            deepest = max(deepest, _depth(child, fragments, known, inside))
        elif isinstance(child, FragmentSpreadNode):
            name = child.name.value
            if name in inside or name not in fragments:
                continue  # other rules refuse both
            if name not in known:
                known[name] = _depth(fragments[name], fragments, known, (*inside, name))
            deepest = max(deepest, known[name])
    return deepest + (1 if isinstance(node, FieldNode) else 0)
