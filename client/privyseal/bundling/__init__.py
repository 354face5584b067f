"""Turns a web build into a bundle: the zip and its manifest. Same input, same bytes."""
