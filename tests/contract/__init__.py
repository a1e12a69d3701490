"""The contracts of foreign clients, call by call."""
