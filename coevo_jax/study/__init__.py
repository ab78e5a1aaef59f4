"""Studies: several configs over seeds, run side by side, kept as rows that tables are made from."""
