"""How jobs look to a person: bars of text, HTML, widgets, charts. It shows what it is given, and starts nothing."""
