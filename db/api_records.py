"""What migration 0010 adds: requests that may come twice, and who did what."""

REQUESTS = """
-- A mutation that was sent with an Idempotency-Key: what it was, and the ids of what it answered with. The row is
-- written in the transaction of the work, so that there is either both or none. Kept for a day.
CREATE TABLE request (
  workspace_id uuid NOT NULL REFERENCES workspace (id),
  actor text NOT NULL,
  key text NOT NULL,
  place text NOT NULL,
  fingerprint bytea NOT NULL,
  answer jsonb NOT NULL,
  done_at timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, actor, key, place)
);
CREATE INDEX request_done ON request (workspace_id, done_at);
"""

AUDIT = """
-- A mutation: who asked for it, when, on what, and how it ended; outcome is null until it has. No names and no values:
-- only ids, which say nothing once their rows are gone.
CREATE TABLE audit_entry (
  workspace_id uuid NOT NULL REFERENCES workspace (id),
  id uuid NOT NULL DEFAULT uuidv7(),
  at timestamptz NOT NULL,
  key_id uuid NOT NULL,
  action text NOT NULL,
  object text,
  outcome text,
  PRIMARY KEY (workspace_id, id)
);
"""

TENANT_TABLES = ("request", "audit_entry")

DOWN = """
DROP TABLE audit_entry;
DROP TABLE request;
"""
