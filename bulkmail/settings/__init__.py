"""From `campaign.toml`, the environment and flags to one frozen `Settings`; and where runs are kept."""
