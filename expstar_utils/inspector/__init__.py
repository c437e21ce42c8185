"""The case inspector: what is known of each case, and the widgets that show it."""
