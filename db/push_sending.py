"""What migration 0009 adds: which of a dispatch's push notifications may be sent again when in doubt, and a way to
all devices of a profile."""

COLUMNS = """
-- Platforms on which a second copy of the dispatch's message takes the place of the first.
-- Whoever finds a worker gone knows by it which of its messages go again; without any all of them are in doubt.
ALTER TABLE dispatch ADD COLUMN repeats_on text[] NOT NULL DEFAULT '{}';
"""

DEVICES = """
-- Devices of one profile, whatever became of them: profile pages, merging and erasing look for those.
CREATE INDEX device_owner ON device (workspace_id, profile_id);
"""

DOWN = """
DROP INDEX device_owner;
ALTER TABLE dispatch DROP COLUMN repeats_on;
"""
