"""The operator's page: what the registry knows, in a browser (docs/web.md).

access.py says who may come in, watch.py follows the mesh, node_query.py says which nodes are asked
for, views.py makes the records, and server.py serves them, as HTML (templates/, static/) or as JSON.
"""
