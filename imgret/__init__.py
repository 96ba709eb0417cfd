"""Image retrieval with basic maths."""
