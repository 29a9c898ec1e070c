"""Plain rules: no Django, no I/O, no clock. `now` comes in as an argument."""
