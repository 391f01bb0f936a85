"""What each subcommand does, in order, one file per subcommand. Called by `cli`; knows no options."""
