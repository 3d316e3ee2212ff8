"""`python -m nas`: the command `nas`, where its script is not on the path."""

from nas.cli.main import main

if __name__ == "__main__":
    main()
