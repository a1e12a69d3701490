"""What all blueprints share: errors, identity, validation, streams, limits."""
