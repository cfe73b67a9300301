"""A relay and its DNS looked at: returns facts, and knows no findings."""
