"""The GraphQL schema: ``types`` and ``inputs`` name what there is, ``query`` connects it to ``api.queries``."""
