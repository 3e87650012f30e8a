"""What migration 0007 adds: what placements allow, the rules of banners, and what viewers did with them."""

PLACEMENTS = """
-- content_fields: what banners here may have; null: everything. link_schemes: beside https, what their links may begin
-- with, such as {myapp}. slots: how many banners are shown at once. limits: how often one viewer sees banners here.
ALTER TABLE placement ADD COLUMN content_fields text[],
  ADD COLUMN link_schemes text[] NOT NULL DEFAULT '{}',
  ADD COLUMN slots smallint NOT NULL DEFAULT 1 CHECK (slots BETWEEN 1 AND 10),
  ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';
"""

CAMPAIGNS = """
-- rules: of a banner its priority, holdout and limits; {} of all others. test_segment_id: who sees a banner before it
-- goes live.
ALTER TABLE campaign ADD COLUMN rules jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN test_segment_id uuid,
  ADD FOREIGN KEY (workspace_id, test_segment_id) REFERENCES segment (workspace_id, id),
  ADD CONSTRAINT campaign_banner CHECK (channel = 'BANNER' OR (rules = '{}' AND test_segment_id IS NULL));
CREATE INDEX campaign_placement ON campaign (workspace_id, placement_id) WHERE placement_id IS NOT NULL;
CREATE INDEX campaign_test_segment ON campaign (workspace_id, test_segment_id) WHERE test_segment_id IS NOT NULL;
-- All that a board may show now or soon, however many banners have ended.
CREATE INDEX campaign_shown ON campaign (workspace_id, id)
  WHERE channel = 'BANNER' AND status IN ('DRAFT', 'PENDING_APPROVAL', 'SCHEDULED', 'ACTIVE');
"""

STOPS = """
-- For whom a banner, or everything in a placement, has stopped: subject_id is the campaign's or the placement's id. A
-- row is written once and never changed; boards read what came after the last seq they know, which is safe since rows
-- of a workspace are committed in the order of seq (campaigns/banner_stops.py). CLICKED and DISMISSED are written
-- whatever the rules say at the time. reached: the limit that LIFETIME or PER_DAY was written for; until: of PER_DAY.
CREATE TABLE banner_stop (
  seq bigint GENERATED ALWAYS AS IDENTITY,
  workspace_id uuid NOT NULL,
  subject_id uuid NOT NULL,
  profile_id integer NOT NULL,
  reason text NOT NULL CHECK (reason IN ('CLICKED', 'DISMISSED', 'PER_DAY', 'LIFETIME')),
  reached integer NOT NULL DEFAULT 0,
  until timestamptz NOT NULL DEFAULT 'infinity',
  PRIMARY KEY (workspace_id, profile_id, subject_id, reason, reached, until),
  UNIQUE (workspace_id, subject_id, seq)
);
CREATE INDEX banner_stop_until ON banner_stop (workspace_id, until) WHERE until < 'infinity';
"""

TRACKING = """
-- What viewers did, as it was told. HIDDEN: it would have been shown, were the viewer not held out. viewer: a profile's
-- id as a number, or the random 128 bits of a visitor. The row itself is what makes a repeated event add nothing:
-- event_key is of the client's id, impression_key of the token and the session of an impression. Both need the month by
-- which the table is cut, so that is not the event's but the one in which its token's window began: an event that is
-- told again has the same token.
CREATE TABLE banner_event (
  workspace_id uuid NOT NULL,
  viewer uuid NOT NULL,
  event_key uuid NOT NULL,
  impression_key uuid,
  token_month timestamptz NOT NULL,
  kind text NOT NULL CHECK (kind IN ('IMPRESSION', 'HIDDEN', 'CLICK', 'DISMISS')),
  campaign_id uuid NOT NULL,
  placement_id uuid NOT NULL,
  content_version integer NOT NULL,
  occurred_at timestamptz NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  machine boolean NOT NULL DEFAULT false,
  PRIMARY KEY (workspace_id, viewer, event_key, token_month),
  UNIQUE (workspace_id, viewer, impression_key, token_month)
) PARTITION BY RANGE (token_month);

-- How often one viewer saw a campaign's banner, or any in a placement: for limits, and to count viewers exactly. days:
-- on which days, as bits, the lowest of which is last_day.
CREATE TABLE banner_tally (
  workspace_id uuid NOT NULL,
  subject_id uuid NOT NULL,
  viewer uuid NOT NULL,
  impressions integer NOT NULL,
  last_day date NOT NULL,
  on_last_day integer NOT NULL,
  days bigint NOT NULL,
  PRIMARY KEY (workspace_id, subject_id, viewer)
) WITH (fillfactor = 85);

-- Counts of a campaign in a placement on a day of UTC. first_viewers: those of its viewers who had never seen the
-- campaign's banner before, which add up over days.
CREATE TABLE banner_day (
  workspace_id uuid NOT NULL,
  campaign_id uuid NOT NULL,
  placement_id uuid NOT NULL,
  day date NOT NULL,
  impressions bigint NOT NULL DEFAULT 0,
  viewers bigint NOT NULL DEFAULT 0,
  first_viewers bigint NOT NULL DEFAULT 0,
  clicks bigint NOT NULL DEFAULT 0,
  dismissals bigint NOT NULL DEFAULT 0,
  hidden bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (workspace_id, campaign_id, day, placement_id)
) WITH (fillfactor = 70);
"""

PEOPLE = """
-- Who was merged lately: boards ask every second. A tombstone's updated_at is when it was merged.
CREATE INDEX profile_merged_at ON profile (workspace_id, updated_at) INCLUDE (id) WHERE merged_into IS NOT NULL;
"""

MONTHS = """
-- banner_event is by month as well; the rest of the function stays as it is.
DO $do$ BEGIN
  EXECUTE replace(pg_get_functiondef('ensure_month(text, timestamptz)'::regprocedure),
    $$'delivery_event')$$, $$'delivery_event', 'banner_event')$$);
END $do$;
"""

TENANT_TABLES = ("banner_stop", "banner_event", "banner_tally", "banner_day")

DOWN = """
DO $do$ BEGIN
  EXECUTE replace(pg_get_functiondef('ensure_month(text, timestamptz)'::regprocedure),
    $$'delivery_event', 'banner_event')$$, $$'delivery_event')$$);
END $do$;
DROP TABLE banner_day, banner_tally, banner_event, banner_stop;
DROP INDEX campaign_shown;
DROP INDEX profile_merged_at;
ALTER TABLE campaign DROP COLUMN rules, DROP COLUMN test_segment_id;
DROP INDEX campaign_placement;
ALTER TABLE placement DROP COLUMN content_fields, DROP COLUMN link_schemes, DROP COLUMN slots, DROP COLUMN limits;
"""
