"""Four ways to a property (S3)."""
