"""To this software and back: what the older one finds when it takes our place, and we when we come back."""
