"""The dashboard in a real browser, on a real hub with a fake engine behind it."""
