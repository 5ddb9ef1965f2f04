"""``python -m projgen``."""

from projgen.cli import main

if __name__ == "__main__":
    main()
