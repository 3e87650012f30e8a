"""What migration 0006 adds: a membership check in one round trip."""

FUNCTIONS = """
-- Where in `names` the members of each segment are, from 1; merges are followed. A transaction of its own in one
-- round trip: it takes the role and the workspace by itself, as transaction() does, and reads under row level
-- security. Called by the login outside of any transaction (db/roles.py: CALLED_BY_LOGIN). By open intervals, an index
-- row each, rather than by a bitmap of which one bit is wanted.
CREATE FUNCTION members_among(of_workspace uuid, segments uuid[], names text[], most_merges integer)
RETURNS TABLE (segment_id uuid, members bigint[])
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_bitmapscan = off AS $$
BEGIN
  PERFORM set_config('role', 'muster_app', true), set_config('muster.workspace_id', of_workspace::text, true);
  RETURN QUERY
  WITH RECURSIVE person (place, id, merged_into, erased_at, step) AS (
    SELECT u.place, p.id, p.merged_into, p.erased_at, 0 FROM unnest(names) WITH ORDINALITY AS u (name, place)
    CROSS JOIN LATERAL (
      SELECT f.id, f.merged_into, f.erased_at FROM profile f
      WHERE f.workspace_id = of_workspace AND f.external_id = u.name LIMIT 1) AS p
    UNION ALL
    SELECT person.place, p.id, p.merged_into, p.erased_at, person.step + 1 FROM person
    CROSS JOIN LATERAL (
      SELECT f.id, f.merged_into, f.erased_at FROM profile f
      WHERE f.workspace_id = of_workspace AND f.id = person.merged_into LIMIT 1) AS p
    WHERE person.step < most_merges),
  living AS MATERIALIZED (SELECT l.place, l.id FROM person l WHERE l.merged_into IS NULL AND l.erased_at IS NULL)
  SELECT s.id, ARRAY(
    SELECT living.place FROM living WHERE s.type = 'EVERYONE' OR EXISTS (
      SELECT FROM membership m
      WHERE m.workspace_id = of_workspace AND m.segment_id = s.id AND m.profile_id = living.id
        AND m.exited_at IS NULL))
  FROM unnest(segments) AS wanted (id)
  CROSS JOIN LATERAL (
    SELECT g.id, g.type FROM segment g WHERE g.workspace_id = of_workspace AND g.id = wanted.id LIMIT 1) AS s;
END $$;
REVOKE EXECUTE ON FUNCTION members_among(uuid, uuid[], text[], integer) FROM PUBLIC;
"""

DOWN = "DROP FUNCTION members_among;"
