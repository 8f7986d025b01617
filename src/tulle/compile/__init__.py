"""Pure functions from the World to what one proxy must do. No clock, no file, no network."""
