"""False alarms, detection and cost of the charts."""
