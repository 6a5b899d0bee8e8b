"""The explorer: what it answers (attnprobe/show/static/README.md lists the questions), and three ways in to it.

They are a server, a notebook's cell, and one HTML file.
"""
