"""Nothing of a stranger's can be read or changed, whatever is sent."""
