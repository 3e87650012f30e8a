"""Kills, stops and skews the real thing in the middle of a blast, then compares what two witnesses say: the ledger in
PostgreSQL and the record of the mail server. docs/reliability.md says what is promised; `make kill-test` runs it."""
