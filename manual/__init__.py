"""The manual pages and the shell completion of our programs, out of their own option parsers.

They are kept in `share/`, so that whoever builds a package needs nothing for them; a test says when they are out of
date, and `./run manual` writes them anew.
"""
