"""What a daemon tells of itself: metrics, events, reports."""
