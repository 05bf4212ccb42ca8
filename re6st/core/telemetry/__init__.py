"""What a daemon reports about itself: metrics, events, reports."""
