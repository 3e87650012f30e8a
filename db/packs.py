"""What migration 0015 adds: packs, copies of what a scan of everybody answers; and by whom word of a change was
written."""

PACKS = """
-- By it a reader tells whether a change was over in a snapshot of before. Rows that are here already are as of now,
-- which makes them newer than they are: they are looked at once too often.
ALTER TABLE profile_change ADD COLUMN xact_id xid8 NOT NULL DEFAULT pg_current_xact_id();

-- What was read of everybody for one trait, or for events of one name, and in which snapshot. Whoever changed since is
-- told by profile_change and pulse, or by `changed` where those have forgotten. Any row may go at any moment, which
-- costs time and nothing else: hence UNLOGGED. `server`: transaction ids mean nothing on another one.
CREATE UNLOGGED TABLE pack (
  workspace_id uuid NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL CHECK (kind IN ('TRAIT', 'EVENT')),
  name text NOT NULL,
  server bigint NOT NULL,
  snapshot pg_snapshot NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now(),
  changed bytea NOT NULL,
  facts jsonb NOT NULL,
  PRIMARY KEY (workspace_id, id),
  UNIQUE (workspace_id, kind, name)
);
-- Of a trait: the people of one value, which `traits` has as if it were theirs. Of events: columns of a part of time.
CREATE UNLOGGED TABLE pack_part (
  workspace_id uuid NOT NULL,
  pack_id bigint NOT NULL,
  place integer NOT NULL,
  traits jsonb,
  content bytea NOT NULL,
  PRIMARY KEY (workspace_id, pack_id, place),
  FOREIGN KEY (workspace_id, pack_id) REFERENCES pack (workspace_id, id) ON DELETE CASCADE
);
ALTER TABLE pack_part ALTER COLUMN content SET STORAGE EXTERNAL;
"""

TENANT_TABLES = ("pack", "pack_part")

DOWN = """
DROP TABLE pack_part;
DROP TABLE pack;
ALTER TABLE profile_change DROP COLUMN xact_id;
"""
