"""Declarations: the kinds, the operations, the reasons of problems. No behaviour."""
