"""Each figure that the README claims, and what measures it: both sides in one run, taking turns."""
