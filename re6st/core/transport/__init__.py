"""What OpenVPN says, and what is noted of its processes."""
