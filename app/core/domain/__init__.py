"""Plain values, states with their legal moves, and errors."""
