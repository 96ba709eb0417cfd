"""The page and the public endpoints; with app.py, the only code that knows Gradio."""
