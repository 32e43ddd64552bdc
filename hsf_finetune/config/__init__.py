"""Settings: composed by Hydra, validated by pydantic, with messages that help."""
