"""What migration 0004 adds: an index of those who were erased, so that a universe need only be counted."""

PEOPLE = """
-- With profile_merged: whoever the answers to conditions may name and who is nobody's member. Read by most evaluations.
CREATE INDEX profile_erased ON profile (workspace_id, id) WHERE erased_at IS NOT NULL;
"""

DOWN = "DROP INDEX profile_erased;"
