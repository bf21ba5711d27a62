"""Streams: the exchange's WebSocket into Kafka, and the flows that turn raw topics into derived ones."""
