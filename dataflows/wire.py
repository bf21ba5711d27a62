"""Fast validation of the exchange's frames.

In: the bytes of one frame. Out: what routing needs of it, or the contract's own error. Pure: no I/O, no clock.

Pydantic is the contract (:mod:`simulator.events`) and has the last word: it judges, and words the reason for,
every frame that the fast decoder does not take. The fast decoder is made from the contract's models, so a field or
a bound added there holds here too, and it takes a part of what Pydantic takes, never more: no field that is not
known, no number as text, no time without a zone. It reads decimals as doubles; since rounding to a double is
monotonic, a number inside the bounds as a double is inside them exactly. Of a time with more than six decimals it
rounds the rest, where Pydantic cuts it off: the event time may differ by a microsecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
from annotated_types import Ge, Gt, Lt, MaxLen, MinLen
from pydantic import AwareDatetime, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from simulator.events import MAX_FRAME_BYTES, AgentAction, MarketEvent, parse_frame

WireEvent = tuple[str, str, int | None, datetime | None]
"""event_type, key (agent_id of an AgentAction, else symbol), sequence, event time"""

_SEQUENCE = re.compile(rb'"sequence"\s*:\s*(\d{1,18})\b')
_BOUNDS: dict[type, str] = {Gt: "gt", Ge: "ge", Lt: "lt", MinLen: "min_length", MaxLen: "max_length"}
_TYPES: dict[Any, Any] = {str: str, int: int, bool: bool, Decimal: float, AwareDatetime: datetime}


def decode_fast(frame: bytes) -> WireEvent | None:
    """A frame that surely keeps the contract; None where :func:`decode_exact` is to decide."""
    if len(frame) > MAX_FRAME_BYTES:
        return None
    try:
        event = _DECODE(frame)
        data = event.data
        event_type, by_agent, rules = _KINDS[event.__class__]
        for rule in rules:
            rule(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return event_type, data.agent_id if by_agent else data.symbol, data.sequence, data.timestamp


def decode_exact(frame: bytes) -> WireEvent:
    """The same by the contract itself.

    Raises:
        ValueError: it breaks the contract; but for its size a :class:`pydantic.ValidationError`.
    """
    if len(frame) > MAX_FRAME_BYTES:
        raise ValueError(f"{len(frame)} bytes are more than the {MAX_FRAME_BYTES} of a frame")
    event = parse_frame(frame)
    data = event.data
    key = data.agent_id if isinstance(data, AgentAction) else data.symbol
    return event.event_type, key, data.sequence, data.timestamp


def sequence_in(frame: bytes) -> int | None:
    """The sequence that a frame which breaks the contract seems to have."""
    found = _SEQUENCE.search(frame[:MAX_FRAME_BYTES])
    return int(found[1]) if found else None


def reason(error: ValueError) -> str:
    """One line for the dead letter: which rule broke, where."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:1000]
    return str(error)[:1000]


def _struct(model: type[BaseModel], **options: Any) -> type[msgspec.Struct]:
    """A struct with the model's fields; an unknown field is an error, unlike in the model."""
    fields = [
        (name, _type(field.annotation, field.metadata))
        if field.is_required()
        else (name, _type(field.annotation, field.metadata), field.default)
        for name, field in model.model_fields.items()
    ]
    return msgspec.defstruct(model.__name__, fields, kw_only=True, forbid_unknown_fields=True, gc=False, **options)


def _type(annotation: Any, metadata: list[Any]) -> Any:
    """A field's type for msgspec, with its bounds.

    Raises:
        TypeError: the contract uses a type that is not known here.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and annotation != AwareDatetime:
        inner = [part for extra in arguments[1:] for part in _parts(extra)]
        return _type(arguments[0], [*metadata, *inner])
    if origin in (Union, UnionType):
        return Union[tuple(None if a is NoneType else _type(a, []) for a in arguments)]  # noqa: UP007
    if origin is list:
        kind: Any = list[_type(arguments[0], [])]  # type: ignore[misc]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _struct(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation
    elif annotation in _TYPES:
        kind = _TYPES[annotation]
    else:
        raise TypeError(f"the contract uses {annotation}, which the fast decoder does not know")
    number = float if kind is float else int
    bounds: dict[str, Any] = {
        name: number(getattr(part, name))
        for part in metadata
        for of, name in _BOUNDS.items()
        if isinstance(part, of)
    }
    if kind is datetime:
        bounds["tz"] = True
    return Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind


def _parts(extra: Any) -> list[Any]:
    return extra.metadata if isinstance(extra, FieldInfo) else [extra]


def _kinds() -> dict[type, tuple[str, bool, list[Callable[[Any], Any]]]]:
    """Struct of a frame → its event_type, whether its key is the agent, the rules between its fields."""
    kinds: dict[type, tuple[str, bool, list[Callable[[Any], Any]]]] = {}
    for envelope in get_args(get_args(MarketEvent)[0]):
        event_type = get_args(envelope.model_fields["event_type"].annotation)[0]
        model = envelope.model_fields["data"].annotation
        frame = msgspec.defstruct(
            envelope.__name__,
            [("data", _struct(model))],
            tag_field="event_type",
            tag=event_type,
            forbid_unknown_fields=True,  # so a time in the envelope, which counts as the event's, is for Pydantic
            gc=False,
        )
        rules = [rule.func for rule in model.__pydantic_decorators__.model_validators.values()]
        kinds[frame] = (event_type, issubclass(model, AgentAction), rules)
    return kinds


_KINDS = _kinds()
_DECODE: Callable[[bytes], Any] = msgspec.json.Decoder(Union[tuple(_KINDS)]).decode  # noqa: UP007
