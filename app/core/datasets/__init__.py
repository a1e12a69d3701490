"""What files of datasets hold: their format, their rows, their text, their search index."""
