"""What migration 0014 does: months of banner events can be dropped; and a function that nobody calls goes."""

FUNCTIONS = """
-- Drops the months of banner_event that ended before `before`, of all workspaces; how many there were. Three months are
-- kept whatever is asked: an event may be told until its token is 60 days old, and its row is what makes a repetition
-- add nothing. Dropping locks the parent, behind whoever writes a long batch: it gives up soon, so that nobody waits
-- behind it.
CREATE FUNCTION drop_banner_months(before timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  latest text := to_char(least(before, now() - interval '3 months') AT TIME ZONE 'UTC', 'YYYYMM');
  child name;
  dropped integer := 0;
BEGIN
  FOR child IN
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'banner_event'::regclass AND right(c.relname, 6) < latest ORDER BY c.relname
  LOOP
    EXECUTE format('DROP TABLE %I', child);
    dropped := dropped + 1;
  END LOOP;
  RETURN dropped;
END $$;
REVOKE EXECUTE ON FUNCTION drop_banner_months(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION drop_banner_months(timestamptz) TO muster_app;
"""

UNUSED = "DROP FUNCTION highest_profile_id();"

DOWN = """
DROP FUNCTION drop_banner_months;
CREATE FUNCTION highest_profile_id() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT coalesce(pg_sequence_last_value('profile_id_seq'), 0)
$$;
REVOKE EXECUTE ON FUNCTION highest_profile_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION highest_profile_id() TO muster_app;
"""
