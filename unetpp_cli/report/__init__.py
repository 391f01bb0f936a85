"""What people look at: tables, plots, history, sheets of samples."""
