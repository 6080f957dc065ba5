"""Reading, checking and writing the configuration of `lbctl`."""
