"""What migration 0013 adds: keys that take over from others, people beside keys, and approval by a second person."""

TABLES = """
-- A key that was rotated names the one that took its place; all keys that came of one are a family, named by the first
-- (null: by itself). Who acts with one of a family is the same to the audit, to requests sent twice and to approvals.
ALTER TABLE api_key ADD COLUMN replaced_by uuid, ADD COLUMN family_id uuid;

-- People sign in with an identity provider and have no key; `subject` is the name that it gives them.
ALTER TABLE audit_entry ALTER COLUMN key_id DROP NOT NULL, ADD COLUMN subject text,
  ADD CONSTRAINT audit_entry_actor CHECK ((key_id IS NULL) <> (subject IS NULL));

-- Messages to more people than this need the approval of a second person; null: none does.
ALTER TABLE workspace ADD COLUMN approval_above integer CHECK (approval_above >= 0);

-- Who asked for approval and who gave it, when, for how many (campaigns/approval.py); null: nobody asked.
ALTER TABLE campaign ADD COLUMN approval jsonb;
"""

FUNCTIONS = """
-- Keys that a process saw in use, all at once; last_used_at is kept to the minute. A row that somebody is writing is
-- left to them.
CREATE FUNCTION keys_used(keys uuid[], used timestamptz[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  WITH free AS (
    SELECT k.id, date_trunc('minute', u.at) AS at FROM unnest(keys, used) AS u (id, at) JOIN api_key k ON k.id = u.id
    WHERE k.last_used_at IS NULL OR k.last_used_at < date_trunc('minute', u.at)
    FOR NO KEY UPDATE OF k SKIP LOCKED)
  UPDATE api_key k SET last_used_at = free.at FROM free WHERE k.id = free.id
$$;
REVOKE EXECUTE ON FUNCTION keys_used(uuid[], timestamptz[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION keys_used(uuid[], timestamptz[]) TO muster_app;
"""

DOWN = """
DROP FUNCTION keys_used;
ALTER TABLE campaign DROP COLUMN approval;
ALTER TABLE workspace DROP COLUMN approval_above;
DELETE FROM audit_entry WHERE key_id IS NULL;
ALTER TABLE audit_entry DROP CONSTRAINT audit_entry_actor, DROP COLUMN subject, ALTER COLUMN key_id SET NOT NULL;
ALTER TABLE api_key DROP COLUMN replaced_by, DROP COLUMN family_id;
"""
