"""``python -m rcompress``."""

from rcompress.cli.app import main

if __name__ == "__main__":
    main()
