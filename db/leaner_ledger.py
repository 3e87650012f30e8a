"""What migration 0005 adds: a ledger whose rows change twice on their way, each time within their page."""

STATES = """
-- No state says any more that a worker holds a row: it reads ahead, and the intent alone changes it.
UPDATE delivery SET state = 'pending', claim_id = NULL WHERE state = 'claimed';
DO $do$
DECLARE
  child regclass;
BEGIN
  ALTER TABLE delivery DROP CONSTRAINT delivery_state_check;
  FOR child IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'delivery'::regclass LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS delivery_state_check', child);
  END LOOP;
END $do$;
ALTER TABLE delivery ADD CONSTRAINT delivery_state_check CHECK (state IN ('pending', 'sending', 'deferred', 'sent',
  'delivered', 'bounced', 'complained', 'skipped', 'failed', 'in_doubt'));
"""

COLUMNS = """
-- walked_through: how far workers have read the ledger, by profile id. message_domain: with dispatch, profile and
-- device it makes a message's id, which is the same at every attempt and need not be written a million times.
ALTER TABLE dispatch ADD COLUMN walked_through integer NOT NULL DEFAULT -1,
  ADD COLUMN message_domain text NOT NULL DEFAULT '';
UPDATE dispatch SET message_domain = split_part(content #>> '{sender,from_address}', '@', 2)
WHERE content #>> '{sender,from_address}' IS NOT NULL;
-- Where a claim began to read: from there on rows may wait that it has read and not sent.
ALTER TABLE claim ADD COLUMN walked_from integer;
-- For an index of those in doubt that the state is no part of.
ALTER TABLE delivery DROP COLUMN message_id,
  ADD COLUMN doubtful boolean GENERATED ALWAYS AS (CASE WHEN state = 'in_doubt' THEN true END) STORED;
"""

INDEXES = """
-- PostgreSQL changes a row within its page, without an entry in any index, only if nothing that an index is made of has
-- changed, conditions included (heap-only tuples). So no index names the state or the claim; not_before and doubtful
-- are null on the way of nearly every message; and of when a message was sent a summary of pages is kept, which does
-- not count (BRIN). Mailboxes are looked up for people who have moved only: by hash, at a third of the cost a row. The
-- messages of one person are found by the primary key, dispatch by dispatch (a skip scan).
DROP INDEX delivery_pending, delivery_deferred, delivery_claim, delivery_address, delivery_profile, delivery_doubtful,
  delivery_sent;
CREATE INDEX delivery_deferred ON delivery (dispatch_id, not_before) WHERE not_before IS NOT NULL;
CREATE INDEX delivery_doubtful ON delivery (dispatch_id, profile_id, device_id) WHERE doubtful;
CREATE INDEX delivery_address ON delivery USING hash (address_hash);
CREATE INDEX delivery_sent ON delivery USING brin (sent_at) WITH (pages_per_range = 64, autosummarize = on);
"""

MONTHS = """
-- Room in each page for what its rows become. The rest of the function stays as it is.
DO $do$
DECLARE
  child regclass;
BEGIN
  EXECUTE replace(pg_get_functiondef('ensure_month(text, timestamptz)'::regprocedure),
    $$IF parent = 'delivery' THEN$$,
    $$IF parent = 'delivery' THEN
    EXECUTE format('ALTER TABLE %I SET (fillfactor = 50)', child);$$);
  FOR child IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'delivery'::regclass LOOP
    EXECUTE format('ALTER TABLE %s SET (fillfactor = 50)', child);
  END LOOP;
END $do$;
"""

DOWN = """
DO $do$ BEGIN
  EXECUTE replace(pg_get_functiondef('ensure_month(text, timestamptz)'::regprocedure),
    $$
    EXECUTE format('ALTER TABLE %I SET (fillfactor = 50)', child);$$, '');
END $do$;
DROP INDEX delivery_deferred, delivery_doubtful, delivery_address, delivery_sent;
ALTER TABLE delivery DROP COLUMN doubtful, ADD COLUMN message_id text, DROP CONSTRAINT delivery_state_check,
  ADD CONSTRAINT delivery_state_check CHECK (state IN ('pending', 'claimed', 'sending', 'deferred', 'sent', 'delivered',
    'bounced', 'complained', 'skipped', 'failed', 'in_doubt'));
UPDATE delivery d SET message_id = format('<%s.%s.%s@%s>', replace(r.id::text, '-', ''), d.profile_id, d.device_id,
  r.message_domain)
FROM dispatch r WHERE r.id = d.dispatch_id AND d.first_attempt_at IS NOT NULL;
UPDATE delivery SET claim_id = NULL WHERE state <> 'sending' AND claim_id IS NOT NULL;
CREATE INDEX delivery_pending ON delivery (dispatch_id, profile_id) WHERE state = 'pending';
CREATE INDEX delivery_deferred ON delivery (dispatch_id, not_before) WHERE state = 'deferred';
CREATE INDEX delivery_claim ON delivery (claim_id) WHERE state IN ('claimed', 'sending');
CREATE INDEX delivery_address ON delivery (dispatch_id, address_hash) WHERE address_hash IS NOT NULL;
CREATE INDEX delivery_profile ON delivery (workspace_id, profile_id);
CREATE INDEX delivery_doubtful ON delivery (dispatch_id, profile_id, device_id) WHERE state = 'in_doubt';
CREATE INDEX delivery_sent ON delivery (workspace_id, sent_at) WHERE sent_at IS NOT NULL;
ALTER TABLE claim DROP COLUMN walked_from;
ALTER TABLE dispatch DROP COLUMN walked_through, DROP COLUMN message_domain;
"""
