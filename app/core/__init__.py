"""The domain: no Flask, no dialect's word, usable from a Python prompt."""
