"""Keeping the processes of one installation: its folder, its children, its logs."""
