"""Starting and watching engines, one file for each way."""
