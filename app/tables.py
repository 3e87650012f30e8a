"""Which modules hold Tortoise models: what the database and its migrations are opened with."""

MODEL_MODULES = ["profiles.models", "segments.models", "campaigns.models"]
