"""``python -m pipeline`` is ``pipeline``."""

from pipeline.interfaces.cli import main

if __name__ == "__main__":
    main()
