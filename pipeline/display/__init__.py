"""How jobs look to a person: bars of text, HTML, widgets, charts. It shows values that it is given, and starts nothing."""
