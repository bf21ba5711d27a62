"""librdkafka's consumer, read in columns.

In: librdkafka's properties and partitions. Out: :class:`Columns`, the parts of many messages. confluent_kafka
makes an object of each message and of each of its parts, a third of what a flow costs; here compiled code copies
what librdkafka hands out. It is the library that confluent_kafka brings, called by its public C interface, whose
later versions run programs written for earlier ones (https://github.com/confluentinc/librdkafka, src/rdkafka.h).

No group and no committed offsets: a flow assigns partitions and keeps their offsets itself. For one thread.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Mapping
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_void_p
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np
from confluent_kafka import KafkaError, KafkaException, cimpl
from numba.core import types
from numpy.typing import NDArray

from lakehouse.compiled import compiled
from lakehouse.texts import SPARE, Integers, Texts

Bytes = NDArray[np.uint8]


class Columns(NamedTuple):
    """The parts of messages in the order in which they came, which in a partition is that of offsets."""

    topic: Integers
    """Numbers to ask :meth:`Consumer.topic` for the names of."""
    partition: Integers
    offset: Integers
    written_ms: Integers
    """Kafka's timestamp; -1: it has none."""
    received_us: Integers
    """Of the header ``received_at``; -1: it has none, or something else stands there."""
    keyless: Integers
    """1 where the message has no key."""
    values: Texts
    keys: Texts


class Consumer:
    """Messages of assigned partitions.

    Args:
        properties: librdkafka's.
        on_error: called with the code of an error that belongs to no partition, from within :meth:`consume`.
        log: gets librdkafka's log.

    Raises:
        KafkaException: there is no such property, or not with such a value.
    """

    def __init__(
        self,
        properties: Mapping[str, str | int | float | bool],
        on_error: Callable[[int], None],
        log: logging.Logger,
    ) -> None:
        reason = ctypes.create_string_buffer(512)
        conf = _library.rd_kafka_conf_new()
        for name, value in {**properties, "log.queue": True}.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if _library.rd_kafka_conf_set(conf, name.encode(), text.encode(), reason, len(reason)):
                _library.rd_kafka_conf_destroy(conf)
                raise KafkaException(KafkaError(KafkaError._INVALID_ARG, reason.value.decode()))
        # Kept: librdkafka calls them as long as it lives.
        self._callbacks = (
            _ON_ERROR(lambda _rk, code, _reason, _opaque: on_error(code)),
            _ON_LOG(lambda _rk, level, _what, text: log.log(_LEVELS[level], "%s", text.decode(errors="replace"))),
        )
        _library.rd_kafka_conf_set_error_cb(conf, self._callbacks[0])
        _library.rd_kafka_conf_set_log_cb(conf, self._callbacks[1])
        self._handle = _library.rd_kafka_new(_CONSUMER, conf, reason, len(reason))
        if not self._handle:
            _library.rd_kafka_conf_destroy(conf)
            raise KafkaException(KafkaError(KafkaError._FAIL, reason.value.decode()))
        _library.rd_kafka_set_log_queue(self._handle, None)
        _library.rd_kafka_poll_set_consumer(self._handle)
        self._queue = _library.rd_kafka_queue_get_consumer(self._handle)
        self._messages = np.empty(0, np.int64)

    def assign(self, topic: str, partition: int, offset: int) -> None:
        """Read a partition, too, from ``offset`` on. Raises KafkaException."""
        partitions = _library.rd_kafka_topic_partition_list_new(1)
        _library.rd_kafka_topic_partition_list_add(partitions, topic.encode(), partition)
        _library.rd_kafka_topic_partition_list_set_offset(partitions, topic.encode(), partition, offset)
        error = _library.rd_kafka_incremental_assign(self._handle, partitions)
        _library.rd_kafka_topic_partition_list_destroy(partitions)
        if error:
            code, text = _library.rd_kafka_error_code(error), _library.rd_kafka_error_string(error).decode()
            _library.rd_kafka_error_destroy(error)
            raise KafkaException(KafkaError(code, text))

    def consume(self, limit: int, wait_s: float, *, received: bool) -> tuple[Columns, list[KafkaError]]:
        """Messages that are there, ``limit`` at most, and what partitions are in trouble with.

        Args:
            wait_s: how long to wait for the first one.
            received: whether to look for the header ``received_at``.
        """
        if len(self._messages) < limit:
            self._messages = np.empty(limit, np.int64)
        first = self._messages.ctypes.data
        count = _library.rd_kafka_consume_batch_queue(self._queue, round(wait_s * 1000), first, 1)
        if count == 1 and limit > 1:
            count += max(0, _library.rd_kafka_consume_batch_queue(self._queue, 0, first + 8, limit - 1))
        messages = self._messages[: max(0, count)]
        codes = _codes(messages)
        errors: list[KafkaError] = []
        if codes.any():
            for place in np.flatnonzero(codes).tolist():
                message = messages[place].item()
                errors.append(KafkaError(codes[place].item(), self._trouble(message)))
                _library.rd_kafka_message_destroy(message)
            messages = messages[codes == 0]
        (*parts, value_ends, key_ends), fields = _unpack(messages, received, _HEADER)
        # Made empty and filled in place, before anybody else has seen them: a copy less of all that is read.
        values, keys = (bytes(int(ends[-1:].sum()) + SPARE) for ends in (value_ends, key_ends))
        _fill(messages, fields, np.frombuffer(values, np.uint8), np.frombuffer(keys, np.uint8))
        return Columns._make([*parts, Texts(values, value_ends), Texts(keys, key_ends)]), errors

    def _trouble(self, message: int) -> str:
        """What an error that came as a message says, and of which partition, where it is of one."""
        said: bytes = _library.rd_kafka_message_errstr(message)
        topic = c_void_p.from_address(message + 8 * _TOPIC).value
        if topic is None:
            return said.decode()
        partition = c_int32.from_address(message + 8 * _PARTITION).value
        return f"{self.topic(topic)}/{partition}: {said.decode()}"

    def topic(self, number: int) -> str:
        """Name of a topic in :attr:`Columns.topic`, while one of its partitions is assigned."""
        name: bytes = _library.rd_kafka_topic_name(number)
        return name.decode()

    def bounds(self, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
        """First and end offset, asked of the broker. Raises KafkaException."""
        low, high = c_int64(), c_int64()
        code = _library.rd_kafka_query_watermark_offsets(
            self._handle, topic.encode(), partition, byref(low), byref(high), round(timeout_s * 1000)
        )
        if code:
            raise KafkaException(KafkaError(code))
        return low.value, high.value

    def end(self, topic: str, partition: int) -> int:
        """End offset as the last fetch told it; negative before the first one."""
        low, high = c_int64(-1), c_int64(-1)
        _library.rd_kafka_get_watermark_offsets(self._handle, topic.encode(), partition, byref(low), byref(high))
        return high.value

    def close(self) -> None:
        """Leave the brokers; nothing else may be called after it."""
        _library.rd_kafka_consumer_close(self._handle)
        _library.rd_kafka_queue_destroy(self._queue)
        _library.rd_kafka_destroy(self._handle)


_library = ctypes.CDLL(cimpl.__file__)
"""Names are looked for in what the extension is linked to as well."""
_ON_ERROR = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_void_p)
_ON_LOG = CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_char_p)
_CONSUMER = 1
_LEVELS = [*[logging.CRITICAL] * 3, logging.ERROR, logging.WARNING, *[logging.INFO] * 2, logging.DEBUG]
"""Of syslog's."""
_OF_C: dict[str, tuple[Any, ...]] = {
    "rd_kafka_conf_new": (c_void_p,),
    "rd_kafka_conf_destroy": (None, c_void_p),
    "rd_kafka_conf_set": (c_int, c_void_p, c_char_p, c_char_p, c_char_p, c_size_t),
    "rd_kafka_conf_set_error_cb": (None, c_void_p, _ON_ERROR),
    "rd_kafka_conf_set_log_cb": (None, c_void_p, _ON_LOG),
    "rd_kafka_new": (c_void_p, c_int, c_void_p, c_char_p, c_size_t),
    "rd_kafka_set_log_queue": (c_int, c_void_p, c_void_p),
    "rd_kafka_poll_set_consumer": (c_int, c_void_p),
    "rd_kafka_queue_get_consumer": (c_void_p, c_void_p),
    "rd_kafka_queue_destroy": (None, c_void_p),
    "rd_kafka_topic_partition_list_new": (c_void_p, c_int),
    "rd_kafka_topic_partition_list_add": (c_void_p, c_void_p, c_char_p, c_int32),
    "rd_kafka_topic_partition_list_set_offset": (c_int, c_void_p, c_char_p, c_int32, c_int64),
    "rd_kafka_topic_partition_list_destroy": (None, c_void_p),
    "rd_kafka_incremental_assign": (c_void_p, c_void_p, c_void_p),
    "rd_kafka_error_code": (c_int, c_void_p),
    "rd_kafka_error_string": (c_char_p, c_void_p),
    "rd_kafka_error_destroy": (None, c_void_p),
    "rd_kafka_consume_batch_queue": (ctypes.c_ssize_t, c_void_p, c_int, c_void_p, c_size_t),
    "rd_kafka_message_errstr": (c_char_p, c_void_p),
    "rd_kafka_message_destroy": (None, c_void_p),
    "rd_kafka_topic_name": (c_char_p, c_void_p),
    "rd_kafka_query_watermark_offsets": (
        *(c_int, c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64), c_int),
    ),
    "rd_kafka_get_watermark_offsets": (*(c_int, c_void_p, c_char_p, c_int32, POINTER(c_int64), POINTER(c_int64)),),
    "rd_kafka_consumer_close": (c_int, c_void_p),
    "rd_kafka_destroy": (None, c_void_p),
}
"""Name → what a function of librdkafka returns and takes."""
for _name, (_result, *_arguments) in _OF_C.items():
    getattr(_library, _name).restype = _result
    getattr(_library, _name).argtypes = _arguments


# --- messages, by compiled code; a pointer is an integer there


def _external(name: str, result: Any, *arguments: Any) -> Any:
    llvm.add_symbol(name, ctypes.cast(getattr(_library, name), c_void_p).value)
    return types.ExternalFunction(name, result(*arguments))


_memcpy: Any = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
_timestamp = _external("rd_kafka_message_timestamp", types.int64, types.uintp, types.uintp)
_headers = _external("rd_kafka_message_headers", types.int32, types.uintp, types.uintp)
_header = _external(
    "rd_kafka_header_get", types.int32, types.uintp, types.uintp, types.uintp, types.uintp, types.uintp
)
_destroy = _external("rd_kafka_message_destroy", types.void, types.uintp)
_HEADER = np.frombuffer(b"received_at\0", np.uint8)
_ERROR, _TOPIC, _PARTITION, _VALUE, _VALUE_SIZE, _KEY, _KEY_SIZE, _OFFSET = range(8)
"""Of a rd_kafka_message_t, in words of eight bytes; the first and the third are half as long."""
_WORDS = 8
_MOST_DIGITS = 19
"""Nanoseconds since 1970 have as many; whatever is longer is no time."""


@compiled
def _codes(messages: Integers) -> Integers:
    """Error of each; 0: it is a message."""
    codes, half = np.empty(len(messages), np.int64), np.zeros(1, np.int32)
    for row in range(len(messages)):
        _memcpy(half.ctypes.data, messages[row], 4)
        codes[row] = half[0]
    return codes


@compiled
def _unpack(messages: Integers, received: bool, header: Bytes) -> tuple[Integers, Integers]:
    """What messages hold beside their values and keys.

    Returns:
        the columns of :class:`Columns` that are integers, the ends of values and of keys; each message in words.
    """
    count = len(messages)
    figures = np.empty((8, count), np.int64)
    topic, partition, offset, written_ms = figures[0], figures[1], figures[2], figures[3]
    received_us, keyless, value_ends, key_ends = figures[4], figures[5], figures[6], figures[7]
    fields = np.empty((count, _WORDS), np.int64)
    halves = fields.view(np.int32)
    scratch = np.zeros(3, np.int64)  # what C functions are to fill
    first, second, third = scratch.ctypes.data, scratch.ctypes.data + 8, scratch.ctypes.data + 16
    value_end = key_end = 0
    for row in range(count):
        _memcpy(fields.ctypes.data + 8 * _WORDS * row, messages[row], 8 * _WORDS)
        topic[row] = fields[row, _TOPIC]
        partition[row] = halves[row, 2 * _PARTITION]
        offset[row] = fields[row, _OFFSET]
        written_ms[row] = _timestamp(messages[row], first)
        value_end += fields[row, _VALUE_SIZE]
        value_ends[row] = value_end
        keyless[row] = fields[row, _KEY] == 0
        key_end += 0 if keyless[row] else fields[row, _KEY_SIZE]
        key_ends[row] = key_end
        received_us[row] = -1
        if (
            received
            and _headers(messages[row], first) == 0
            and _header(scratch[0], 0, header.ctypes.data, second, third) == 0
        ):
            received_us[row] = _micros(scratch[1], scratch[2])
    return figures, fields


@compiled
def _fill(messages: Integers, fields: Integers, values: Bytes, keys: Bytes) -> None:
    """Copy values and keys, and give the messages back to librdkafka."""
    value_at, key_at = values.ctypes.data, keys.ctypes.data
    for row in range(len(messages)):
        size = fields[row, _VALUE_SIZE]
        _memcpy(value_at, fields[row, _VALUE], size)
        value_at += size
        if fields[row, _KEY] != 0:
            _memcpy(key_at, fields[row, _KEY], fields[row, _KEY_SIZE])
            key_at += fields[row, _KEY_SIZE]
        _destroy(messages[row])


@compiled
def _micros(address: int, size: int) -> int:
    """Microseconds of the nanoseconds that some bytes in memory print; -1: they print none."""
    if not 0 < size <= _MOST_DIGITS:
        return -1
    text = np.empty(_MOST_DIGITS, np.uint8)
    _memcpy(text.ctypes.data, address, size)
    number = 0
    for place in range(size):
        if not ord("0") <= text[place] <= ord("9"):
            return -1
        if place < size - 3:  # all nineteen digits may not fit
            number = number * 10 + int(text[place]) - ord("0")
    return number
