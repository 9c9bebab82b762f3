"""What every part of Fleetest shares: domain values, errors, settings, logging and blobs."""
