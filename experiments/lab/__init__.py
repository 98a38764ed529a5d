"""What all experiments share: entry points, units of work, records."""
