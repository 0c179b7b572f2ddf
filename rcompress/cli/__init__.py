"""The command line: one file per subcommand, a shared error boundary, one way to show things."""
