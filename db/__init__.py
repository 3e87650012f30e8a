"""PostgreSQL: transactions, roles, column types and migrations. Knows no table's meaning."""
