"""How: the only code that speaks to providers. Never sees the database; sees nothing of ours."""
