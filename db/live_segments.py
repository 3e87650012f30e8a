"""What migration 0002 adds to `ddl.py`: live segments, their feed and ranking, saved SQL, dated traits."""

from db import ddl

PEOPLE = """
-- Of the latest event that carried it: what conditions on device, browser and place ask when nothing else is known.
ALTER TABLE profile ADD COLUMN seen_device_type text, ADD COLUMN seen_browser text, ADD COLUMN seen_country text,
  ADD COLUMN seen_city text;

-- Traits that are dates, as instants. jsonb cannot be searched for those who cross an edge, and casting text to a time
-- in a query fails for everybody when it fails for one.
CREATE TABLE profile_date (
  workspace_id uuid NOT NULL,
  key text NOT NULL,
  at timestamptz NOT NULL,
  profile_id integer NOT NULL,
  PRIMARY KEY (workspace_id, key, at, profile_id)
);
CREATE INDEX profile_date_profile ON profile_date (workspace_id, profile_id);

-- Events of clocks that are ahead: their people were last seen when they came in, not when they occurred.
CREATE INDEX event_ahead ON event (workspace_id, received_at) INCLUDE (profile_id) WHERE occurred_at > received_at;
"""

# The same rule as profiles/dates.py, and a test that they agree: ISO 8601, a date alone is its midnight in UTC, no
# offset means UTC (the zone of our sessions). What only looks like a date (2024-02-30) is none. CASE, for nothing else
# promises that a text is cast only after it was found to be valid.
BACKFILL_DATES = r"""
INSERT INTO profile_date (workspace_id, key, at, profile_id)
SELECT p.workspace_id, t.key, t.at, p.id
FROM profile p CROSS JOIN LATERAL (
  SELECT e.key, CASE
    WHEN jsonb_typeof(e.value) <> 'string' THEN NULL
    WHEN e.value #>> '{}' !~ ('^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]'
      || '(\.[0-9]{1,6})?)?(Z|[+-](0[0-9]|1[0-5]):[0-5][0-9])?)?$') THEN NULL
    WHEN pg_input_is_valid(e.value #>> '{}', 'timestamptz') THEN (e.value #>> '{}')::timestamptz
  END AS at
  FROM jsonb_each(p.traits) AS e) AS t
WHERE p.erased_at IS NULL AND p.merged_into IS NULL AND t.at >= '0001-01-01Z' AND t.at < '10000-01-01Z'
"""

SEGMENTS = """
ALTER TABLE segment
  ADD COLUMN live boolean NOT NULL DEFAULT false,
  ADD COLUMN mode text NOT NULL DEFAULT 'NESTED' CHECK (mode IN ('SIMPLE', 'NESTED')),
  ADD COLUMN ranking jsonb,
  ADD COLUMN change_guard smallint DEFAULT 50 CHECK (change_guard BETWEEN 1 AND 100);
UPDATE segment SET live = true WHERE type = 'DYNAMIC' AND cadence <> 'NEVER';
CREATE INDEX segment_live ON segment (workspace_id) WHERE live AND status = 'ACTIVE';

-- SQL that people wrote; it answers profile ids.
CREATE TABLE saved_query (
  id uuid PRIMARY KEY DEFAULT uuidv7(),
  workspace_id uuid NOT NULL REFERENCES workspace (id),
  name text NOT NULL CHECK (name <> ''),
  description text NOT NULL DEFAULT '',
  sql text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (workspace_id, id),
  UNIQUE (workspace_id, name)
);

-- What a definition names: it cannot be deleted meanwhile, and tells in which order to evaluate.
CREATE TABLE segment_reference (
  workspace_id uuid NOT NULL,
  segment_id uuid NOT NULL,
  uses_id uuid NOT NULL,
  PRIMARY KEY (workspace_id, segment_id, uses_id),
  FOREIGN KEY (workspace_id, segment_id) REFERENCES segment (workspace_id, id) ON DELETE CASCADE,
  FOREIGN KEY (workspace_id, uses_id) REFERENCES segment (workspace_id, id)
);
CREATE INDEX segment_reference_uses ON segment_reference (workspace_id, uses_id);
CREATE TABLE segment_query (
  workspace_id uuid NOT NULL,
  segment_id uuid NOT NULL,
  query_id uuid NOT NULL,
  PRIMARY KEY (workspace_id, segment_id, query_id),
  FOREIGN KEY (workspace_id, segment_id) REFERENCES segment (workspace_id, id) ON DELETE CASCADE,
  FOREIGN KEY (workspace_id, query_id) REFERENCES saved_query (workspace_id, id)
);
CREATE INDEX segment_query_query ON segment_query (workspace_id, query_id);

-- approved_at: when a person let a held evaluation through; it then runs again and is not held.
ALTER TABLE evaluation ADD COLUMN approved_at timestamptz;
ALTER TABLE evaluation DROP CONSTRAINT evaluation_cause_check;
ALTER TABLE evaluation ADD CONSTRAINT evaluation_cause_check CHECK (cause IN ('REQUEST', 'CADENCE', 'ACTIVATION',
  'DEFINITION', 'CAMPAIGN', 'DEPENDENCY', 'BACKLOG', 'GUARD'));

CREATE INDEX evaluation_held ON evaluation (workspace_id, segment_id) WHERE status = 'HELD';

-- base_version is another one whenever `base` is rewritten: a process that has read a base need not read it again.
ALTER TABLE segment_membership ADD COLUMN base_version bigint NOT NULL DEFAULT 0;

-- One index instead of three: a first population writes a row for every member, and each index costs as much as the
-- row. Which segments a profile is in is asked segment by segment, of which there are few.
DROP INDEX membership_open;
DROP INDEX membership_profile;
ALTER TABLE membership DROP COLUMN id, DROP COLUMN rank_value;
-- An interval is closed once: with room on its page that needs no new index entry.
ALTER TABLE membership SET (fillfactor = 90);
ALTER TABLE membership ADD PRIMARY KEY (segment_id, profile_id, entered_at);

-- All who match a ranked segment, not only the members: whoever comes up is found when somebody above goes. Ascending
-- orders keep the negated value; -Infinity stands for no value and ranks last.
CREATE TABLE segment_rank (
  workspace_id uuid NOT NULL,
  segment_id uuid NOT NULL,
  profile_id integer NOT NULL,
  order_value double precision NOT NULL,
  PRIMARY KEY (segment_id, profile_id)
);
CREATE INDEX segment_rank_order ON segment_rank (segment_id, order_value DESC, profile_id);

-- The feed of who entered, exited and was re-ranked: a row a change of a segment, however many people it moved.
-- id is the order of a segment's changes; by xact_id a reader can stop before transactions that are not finished.
CREATE TABLE membership_change (
  id bigint GENERATED ALWAYS AS IDENTITY,
  workspace_id uuid NOT NULL,
  segment_id uuid NOT NULL,
  xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
  at timestamptz NOT NULL,
  reason text NOT NULL,
  entered bytea NOT NULL,
  exited bytea NOT NULL,
  reranked bytea NOT NULL,
  PRIMARY KEY (segment_id, id)
);
CREATE INDEX membership_change_at ON membership_change (workspace_id, at);
ALTER TABLE membership_change ALTER COLUMN entered SET STORAGE EXTERNAL, ALTER COLUMN exited SET STORAGE EXTERNAL,
  ALTER COLUMN reranked SET STORAGE EXTERNAL;

-- Up to when the windows of live segments were followed; whoever pulses holds this row.
CREATE TABLE pulse_clock (
  workspace_id uuid PRIMARY KEY REFERENCES workspace (id),
  through timestamptz NOT NULL
);
-- Whom a pulse re-evaluated: a full evaluation that began before asks for them again.
CREATE TABLE pulse (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workspace_id uuid NOT NULL,
  xact_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
  at timestamptz NOT NULL,
  evaluated bytea NOT NULL
);
CREATE INDEX pulse_at ON pulse (workspace_id, at);

-- Merges and erasures that memberships are still to follow, which they do in every workspace, live segments or none.
CREATE INDEX profile_change_moved ON profile_change (workspace_id, seq) WHERE kind <> 'touched';
"""

ENGAGEMENT = """
-- What conditions on campaigns ask when they name none: by kind and time, or by when a message was sent. The latter is
-- one entry more for a message, at the index's right end.
CREATE INDEX delivery_event_kind ON delivery_event (workspace_id, kind, occurred_at) INCLUDE (profile_id);
CREATE INDEX delivery_sent ON delivery (workspace_id, sent_at) WHERE sent_at IS NOT NULL;
-- By the winner: the losers whose mail counts for it. Read whole, both columns come from the index.
DROP INDEX profile_merged;
CREATE INDEX profile_merged ON profile (workspace_id, merged_into) INCLUDE (id) WHERE merged_into IS NOT NULL;
-- Who has an address, out of the index alone: what an estimate asks of a million.
DROP INDEX profile_email;
CREATE INDEX profile_email ON profile (workspace_id, email_hash) INCLUDE (id) WHERE email_hash IS NOT NULL;
"""

# The policies of 0001 as they are made now: the workspace is worked out once a statement.
POLICIES = "\n".join(
    f"ALTER POLICY tenant ON {table} USING ({column} = {ddl.OWN}) WITH CHECK ({column} = {ddl.OWN});"
    for table, column in [("workspace", "id"), *((table, "workspace_id") for table in ddl.TENANT_TABLES)]
)

TENANT_TABLES = (
    "profile_date", "saved_query", "segment_reference", "segment_query", "segment_rank", "membership_change",
    "pulse_clock", "pulse",
)  # fmt: skip

LEAF_TABLES = ("profile_date",)

FUNCTIONS = """
-- Workspaces with live segments to keep true, or with members to be moved after a merge or an erasure.
CREATE FUNCTION live_workspaces() RETURNS TABLE (workspace_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT s.workspace_id FROM segment s WHERE s.live AND s.status = 'ACTIVE'
  UNION SELECT c.workspace_id FROM profile_change c WHERE c.kind <> 'touched' ORDER BY 1
$$;
REVOKE EXECUTE ON FUNCTION live_workspaces() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION live_workspaces() TO muster_app;

-- What saved SQL may read, row by row of its own workspace: the columns its views name, and no other.
GRANT SELECT (id, workspace_id, external_id, email, phone, traits, time_zone, locale, country, city, identified,
  first_seen_at, last_seen_at, merged_into, erased_at, created_at, updated_at, seen_device_type, seen_browser,
  seen_country, seen_city) ON profile TO muster_query;
GRANT SELECT (workspace_id, profile_id, name, occurred_at, received_at, properties, page_path, device_type, browser,
  country, city, session_id) ON event TO muster_query;
GRANT SELECT ON profile_brand TO muster_query;
"""

DOWN = """
DROP INDEX delivery_event_kind;
DROP INDEX delivery_sent;
DROP INDEX profile_merged;
CREATE INDEX profile_merged ON profile (workspace_id, id) WHERE merged_into IS NOT NULL;
DROP INDEX profile_email;
CREATE INDEX profile_email ON profile (workspace_id, email_hash) WHERE email_hash IS NOT NULL;
REVOKE SELECT ON profile, event, profile_brand FROM muster_query;
DROP FUNCTION live_workspaces;
DROP INDEX profile_change_moved;
DROP TABLE pulse, pulse_clock, membership_change, segment_rank, segment_query, segment_reference, saved_query,
  profile_date;
ALTER TABLE membership RESET (fillfactor);
ALTER TABLE membership DROP CONSTRAINT membership_pkey;
ALTER TABLE membership ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ADD COLUMN rank_value double precision;
CREATE UNIQUE INDEX membership_open ON membership (workspace_id, segment_id, profile_id) WHERE exited_at IS NULL;
CREATE INDEX membership_profile ON membership (workspace_id, profile_id);
ALTER TABLE segment_membership DROP COLUMN base_version;
DROP INDEX evaluation_held;
ALTER TABLE evaluation DROP COLUMN approved_at;
-- The release before knows no others.
UPDATE evaluation SET cause = 'REQUEST' WHERE cause IN ('DEPENDENCY', 'BACKLOG', 'GUARD');
ALTER TABLE evaluation DROP CONSTRAINT evaluation_cause_check;
ALTER TABLE evaluation ADD CONSTRAINT evaluation_cause_check CHECK (cause IN ('REQUEST', 'CADENCE', 'ACTIVATION',
  'DEFINITION', 'CAMPAIGN'));
DROP INDEX segment_live;
ALTER TABLE segment DROP COLUMN live, DROP COLUMN mode, DROP COLUMN ranking, DROP COLUMN change_guard;
DROP INDEX event_ahead;
ALTER TABLE profile DROP COLUMN seen_device_type, DROP COLUMN seen_browser, DROP COLUMN seen_country,
  DROP COLUMN seen_city;
"""
