"""What the API reads from the lakehouse: one module per subject, plain functions from arguments to rows.

Every statement is parameterised; nothing a client sends becomes part of its text. Rows are dictionaries with exact
decimals and aware datetimes; GraphQL and REST present them.
"""
