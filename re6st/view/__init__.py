"""Text for people, and out of their hands: nothing is decided here, and nothing read or sent."""
