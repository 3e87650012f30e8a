"""What migration 0008 adds: what push notifications are sent with, and which app a device runs."""

DEVICES = """
-- The app that a device runs, by the name that its credentials have; most workspaces have one app.
ALTER TABLE device ADD COLUMN app text NOT NULL DEFAULT 'default';
"""

CREDENTIALS = """
-- What FCM and APNs know an app by. `sealed` is the secret part, encrypted with the key that key_id names
-- (campaigns/sealing.py); `facts` the rest, which people may see. checked_at and check_code: what the provider said
-- when it was last asked; null since the secret changed.
CREATE TABLE push_credential (
  workspace_id uuid NOT NULL REFERENCES workspace (id),
  app text NOT NULL,
  provider text NOT NULL CHECK (provider IN ('FCM', 'APNS')),
  facts jsonb NOT NULL,
  sealed bytea NOT NULL,
  key_id text NOT NULL,
  set_at timestamptz NOT NULL,
  checked_at timestamptz,
  check_code text,
  check_detail text,
  PRIMARY KEY (workspace_id, app, provider)
);
"""

TENANT_TABLES = ("push_credential",)

DOWN = """
DROP TABLE push_credential;
ALTER TABLE device DROP COLUMN app;
"""
