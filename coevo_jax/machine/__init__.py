"""Chips and what work costs on them."""
