"""The explorer: what it answers, and three ways in to it: a server, a notebook's cell, and one HTML file."""
