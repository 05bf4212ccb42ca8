"""What we measure. Each module is a program: `./run bench NAME`."""
