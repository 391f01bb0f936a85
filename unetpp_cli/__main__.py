"""`python -m unetpp_cli` is `unetpp`."""

from unetpp_cli.cli import main

if __name__ == "__main__":
    main()
