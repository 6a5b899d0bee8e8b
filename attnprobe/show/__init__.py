"""Views of weights: terminal and matplotlib. They take plain arrays and labels, and know nothing of models or runs."""
