"""This machine: links, addresses, routes, nftables, files, processes."""
