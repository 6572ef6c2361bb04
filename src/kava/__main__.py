"""`python -m kava`: the shell, where the script `kava` is not on the path."""

from kava.cli import main

if __name__ == "__main__":
    main()
