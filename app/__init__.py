"""Weft's hub."""
