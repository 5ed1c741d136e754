"""``python -m fathometer`` is the command line."""

from fathometer.cli import main

if __name__ == "__main__":
    main()
