"""How the starter is made from named packages: `python -m imgret.encoders.make_starter` runs it. Nothing that searches
or builds an index imports this.
"""
