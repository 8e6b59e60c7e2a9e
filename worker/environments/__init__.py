"""Where an attempt's interpreter and libraries come from, when it brings its own."""
