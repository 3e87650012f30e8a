"""What migration 0003 adds: paces, thresholds, tracked links, and how far a dispatch is."""

CAMPAIGNS = """
-- How fast at most, in messages a second; null: as fast as the channel takes them. How many of a hundred attempts may
-- be refused before it pauses by itself; null: it never does.
ALTER TABLE campaign ADD COLUMN rate_per_s integer CHECK (rate_per_s BETWEEN 1 AND 100000),
  ADD COLUMN error_threshold smallint DEFAULT 5 CHECK (error_threshold BETWEEN 1 AND 100);

-- Whether mails carry an image that tells of their being opened, and links that tell of clicks.
ALTER TABLE workspace ADD COLUMN track_opens boolean NOT NULL DEFAULT true,
  ADD COLUMN track_clicks boolean NOT NULL DEFAULT true;

-- When the next message may leave by the campaign's rate: one instant for all workers (GCRA).
ALTER TABLE dispatch ADD COLUMN next_send_at timestamptz,
  ADD COLUMN progressed_at timestamptz;
"""

LINKS = """
-- Where the links of a dispatch's mails lead. Mails name a link by its id, never by its address: nobody can make us
-- redirect to somewhere else.
CREATE TABLE link (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  workspace_id uuid NOT NULL,
  campaign_id uuid NOT NULL,
  dispatch_id uuid NOT NULL,
  place smallint NOT NULL,
  url text NOT NULL,
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

TENANT_TABLES = ("link",)

FUNCTIONS = """
-- Whose link it is: a request that follows one names nothing else.
CREATE FUNCTION link_workspace(wanted bigint) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT l.workspace_id FROM link l WHERE l.id = wanted
$$;
REVOKE EXECUTE ON FUNCTION link_workspace(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION link_workspace(bigint) TO muster_app;
"""

DOWN = """
DROP FUNCTION link_workspace;
DROP TABLE channel_pace;
ALTER TABLE delivery_event DROP COLUMN link_id;
DROP TABLE link;
ALTER TABLE dispatch DROP COLUMN next_send_at, DROP COLUMN progressed_at;
ALTER TABLE workspace DROP COLUMN track_opens, DROP COLUMN track_clicks;
ALTER TABLE campaign DROP COLUMN rate_per_s, DROP COLUMN error_threshold;
"""
