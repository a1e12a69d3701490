"""The dashboard's pages, asked for as a browser asks."""
