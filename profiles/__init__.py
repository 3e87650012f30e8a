"""Who exists: workspaces, brands, keys, profiles, devices, consent, suppression, events and their ingestion."""
