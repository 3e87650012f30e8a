"""What migration 0003 adds: paces, thresholds, tracked links, and how far a dispatch is."""

PEOPLE = """
-- Who changed: all of a batch in one row. A row each cost ingestion a tenth of what an event costs, and whoever acted
-- on it as much again. Merges and erasures stay a row each, in their order.
ALTER TABLE profile_change ADD COLUMN profile_ids integer[], ALTER COLUMN profile_id DROP NOT NULL;
UPDATE profile_change SET profile_ids = ARRAY[profile_id], profile_id = NULL WHERE kind = 'touched';
ALTER TABLE profile_change
  ADD CONSTRAINT profile_change_people CHECK (num_nonnulls(profile_id, profile_ids) = 1),
  ADD CONSTRAINT profile_change_touched CHECK ((kind = 'touched') = (profile_ids IS NOT NULL)),
  ADD COLUMN people integer GENERATED ALWAYS AS (cardinality(profile_ids)) STORED,
  -- A thousand sorted ids hardly get smaller.
  ALTER COLUMN profile_ids SET STORAGE EXTERNAL;
"""

CAMPAIGNS = """
-- How fast at most, in messages a second; null: as fast as the channel takes them. How many of a hundred attempts may
-- be refused before it pauses by itself; null: it never does.
ALTER TABLE campaign ADD COLUMN rate_per_s integer CHECK (rate_per_s BETWEEN 1 AND 100000),
  ADD COLUMN error_threshold smallint DEFAULT 5 CHECK (error_threshold BETWEEN 1 AND 100);

-- Whether mails carry an image that tells of their being opened, and links that tell of clicks.
ALTER TABLE workspace ADD COLUMN track_opens boolean NOT NULL DEFAULT true,
  ADD COLUMN track_clicks boolean NOT NULL DEFAULT true;

-- next_send_at: when the next message may leave by the campaign's rate, one instant for all workers (GCRA). resumed_at:
-- since when what goes wrong counts. tally, counted_at and count_took: what a dispatch under way was
-- like a moment ago, so that however many look, it is counted once.
ALTER TABLE dispatch ADD COLUMN next_send_at timestamptz,
  ADD COLUMN resumed_at timestamptz,
  ADD COLUMN tally jsonb,
  ADD COLUMN counted_at timestamptz,
  ADD COLUMN count_took interval;
"""

DOUBTS = """
-- Who said what became of messages in doubt, and of how many. Never changed, never deleted with its key.
CREATE TABLE in_doubt_resolution (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workspace_id uuid NOT NULL,
  campaign_id uuid NOT NULL,
  resolved_as text NOT NULL CHECK (resolved_as IN ('SENT', 'RETRY')),
  messages integer NOT NULL,
  resolved_by text NOT NULL,
  resolved_at timestamptz NOT NULL,
  FOREIGN KEY (workspace_id, campaign_id) REFERENCES campaign (workspace_id, id) ON DELETE CASCADE
);
CREATE INDEX in_doubt_resolution_campaign ON in_doubt_resolution (workspace_id, campaign_id, id);

-- What people look for in a ledger of a million: few rows each, none of them on the way of a message that is sent.
CREATE INDEX delivery_reason ON delivery (dispatch_id, reason, profile_id, device_id) WHERE reason IS NOT NULL;
CREATE INDEX delivery_doubtful ON delivery (dispatch_id, profile_id, device_id) WHERE state = 'in_doubt';
"""

LINKS = """
-- Where the links of a dispatch's mails lead. Mails name a link by its id, never by its address: nobody can make us
-- redirect to somewhere else. One without an address is the image that tells of opens.
CREATE TABLE link (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workspace_id uuid NOT NULL,
  campaign_id uuid NOT NULL,
  dispatch_id uuid NOT NULL,
  place smallint NOT NULL,
  url text,
  UNIQUE (dispatch_id, place),
  FOREIGN KEY (workspace_id, dispatch_id) REFERENCES dispatch (workspace_id, id) ON DELETE CASCADE
);

ALTER TABLE delivery_event ADD COLUMN link_id bigint;
"""

PACE = """
-- When the next message may leave by a channel's rate, for all workers and workspaces together. No tenant's.
CREATE TABLE channel_pace (
  channel text PRIMARY KEY,
  next_at timestamptz NOT NULL
);
"""

TENANT_TABLES = ("link", "in_doubt_resolution")

FUNCTIONS = """
-- Whose link it is: a request that follows one names nothing else.
CREATE FUNCTION link_workspace(wanted bigint) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT l.workspace_id FROM link l WHERE l.id = wanted
$$;
REVOKE EXECUTE ON FUNCTION link_workspace(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION link_workspace(bigint) TO muster_app;

-- Moves a channel's next instant on by so many messages and says how long to wait for the first of them; null when
-- others have reserved the time up to `ahead` from now.
CREATE FUNCTION reserve_pace(of_channel text, messages integer, rate float8, ahead interval) RETURNS interval
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  WITH taken AS (
    INSERT INTO channel_pace AS p (channel, next_at)
    VALUES (of_channel, now() + make_interval(secs => messages / rate))
    ON CONFLICT (channel) DO UPDATE SET next_at = greatest(p.next_at, now()) + make_interval(secs => messages / rate)
    WHERE p.next_at <= now() + ahead
    RETURNING p.next_at)
  SELECT next_at - make_interval(secs => messages / rate) - now() FROM taken
$$;
REVOKE EXECUTE ON FUNCTION reserve_pace(text, integer, float8, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reserve_pace(text, integer, float8, interval) TO muster_app;
"""

DOWN = """
ALTER TABLE profile_change DROP CONSTRAINT profile_change_people, DROP CONSTRAINT profile_change_touched;
INSERT INTO profile_change (workspace_id, profile_id, kind, changed_at)
SELECT workspace_id, unnest(profile_ids), kind, changed_at FROM profile_change WHERE kind = 'touched' ORDER BY seq;
DELETE FROM profile_change WHERE profile_ids IS NOT NULL;
ALTER TABLE profile_change ALTER COLUMN profile_id SET NOT NULL, DROP COLUMN people, DROP COLUMN profile_ids;
DROP FUNCTION link_workspace, reserve_pace;
DROP TABLE channel_pace;
ALTER TABLE delivery_event DROP COLUMN link_id;
DROP TABLE link;
DROP INDEX delivery_reason, delivery_doubtful;
DROP TABLE in_doubt_resolution;
ALTER TABLE dispatch DROP COLUMN next_send_at, DROP COLUMN resumed_at, DROP COLUMN tally, DROP COLUMN counted_at,
  DROP COLUMN count_took;
ALTER TABLE workspace DROP COLUMN track_opens, DROP COLUMN track_clicks;
ALTER TABLE campaign DROP COLUMN rate_per_s, DROP COLUMN error_threshold;
"""
