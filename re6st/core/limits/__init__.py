"""What others may make us do, hold and say: in bounds for each sender, and in all."""
