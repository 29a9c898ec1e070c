"""Questions: what every door reads. Nothing here writes."""
