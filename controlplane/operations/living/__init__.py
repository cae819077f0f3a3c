"""What can be done with what lives: agents, their turns, code, channels, hosts.

These operations act at once, through the gate, or read records; none of them plans or commits.
"""
