"""What migration 0011 adds: how things stand in all workspaces together, for operators, and which schema this is."""

FUNCTIONS = """
-- Numbers for GET /metrics: (measure, channel, state, value). Nothing here looks at the ledger: a dispatch keeps what
-- was counted of it (campaigns/counts.py), so that it costs the same with a thousand messages and a hundred million.
-- Every part is bounded by an index or by the campaigns that people made.
CREATE FUNCTION standing(lately interval) RETURNS TABLE (measure text, channel text, state text, value float8)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT 'campaigns', c.channel, c.status, count(*)::float8 FROM campaign c GROUP BY c.channel, c.status
  UNION ALL
  SELECT 'deliveries', c.channel, s.key, sum(s.value::float8)
  FROM dispatch d
  JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
  CROSS JOIN LATERAL jsonb_each_text(coalesce(d.tally -> 'states', d.counts, '{}')) s
  WHERE d.id >= uuidv7_floor(now() - lately) AND jsonb_typeof(coalesce(d.tally -> 'states', d.counts)) = 'object'
  GROUP BY c.channel, s.key
  UNION ALL
  SELECT 'oldest_s', '', 'evaluation', coalesce(extract(epoch FROM now() - min(e.queued_at)), 0)
  FROM evaluation e WHERE e.status = 'QUEUED'
  UNION ALL
  SELECT 'oldest_s', '', 'schedule', coalesce(extract(epoch FROM now() - min(c.scheduled_at)), 0)
  FROM campaign c WHERE c.status = 'SCHEDULED' AND c.scheduled_at <= now()
  UNION ALL
  SELECT 'oldest_s', '', 'expired claim', coalesce(extract(epoch FROM now() - min(l.lease_until)), 0)
  FROM claim l WHERE l.lease_until < now()
  UNION ALL
  SELECT 'oldest_s', '', 'silent dispatch', coalesce(extract(epoch FROM now() - min(d.heartbeat_at)), 0)
  FROM dispatch d JOIN campaign c ON c.workspace_id = d.workspace_id AND c.id = d.campaign_id
  WHERE d.finished_at IS NULL AND d.kind = 'SEND' AND c.status IN ('PREPARING', 'SENDING')
  UNION ALL
  SELECT 'evaluations', '', e.status, count(*)::float8
  FROM evaluation e WHERE e.id >= uuidv7_floor(now() - lately) GROUP BY e.status
  UNION ALL
  SELECT 'evaluation_s', '', q.name, coalesce(percentile_cont(q.at) WITHIN GROUP (ORDER BY e.duration_ms) / 1000, 0)
  FROM (VALUES ('0.5', 0.5), ('0.99', 0.99), ('1', 1.0)) q (name, at)
  LEFT JOIN evaluation e ON e.id >= uuidv7_floor(now() - lately) AND e.duration_ms IS NOT NULL
  GROUP BY q.name, q.at
$$;
REVOKE EXECUTE ON FUNCTION standing(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION standing(interval) TO muster_app;

-- Which of `known` migrations are not in this database: a process whose code is newer must not take requests.
CREATE FUNCTION migrations_missing(known text[]) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT coalesce(array_agg(k ORDER BY k), '{}') FROM unnest(known) k
  WHERE NOT EXISTS (SELECT FROM tortoise_migrations m WHERE m.name = k)
$$;
REVOKE EXECUTE ON FUNCTION migrations_missing(text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION migrations_missing(text[]) TO muster_app;

-- How long ago one of the turns that workers take was taken, in seconds; null: never.
CREATE FUNCTION turn_age(what text) RETURNS float8
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT extract(epoch FROM now() - t.taken_at) FROM turn t WHERE t.name = what
$$;
REVOKE EXECUTE ON FUNCTION turn_age(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION turn_age(text) TO muster_app;
"""

DOWN = """
DROP FUNCTION standing, migrations_missing, turn_age;
"""
