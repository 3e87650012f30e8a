"""The edge (HTTP, GraphQL, command line) and the wiring of every process; nothing below imports it."""
