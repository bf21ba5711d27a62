"""The live stream: Kafka topics in, Server-Sent Events out.

``events`` decodes messages, ``hub`` remembers the latest state and fans out, ``consumer`` reads the broker,
``stream`` writes to one reader. Nothing here is durable: a restart reads the end of the topics back.
"""
