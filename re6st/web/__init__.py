"""The operator's page: shows in a browser what the registry knows (docs/web.md).

access.py decides who may see it, watch.py follows the mesh, node_query.py reads which nodes are searched for, views.py
makes the records, and server.py serves them as HTML (templates/, static/) or as JSON.
"""
