"""The command line: verbs as in Appflow's, and `publish`, which does all of it."""
